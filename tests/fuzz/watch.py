"""Side effects of a reader: events of the interpreter, and log messages."""

import logging
import os
import sys
from pathlib import Path
from types import FrameType

from .formats.pickles import CANARY

# Events of the interpreter's audit hooks that no reader of files should cause
_OS = ("system", "exec", "fork", "forkpty", "posix_spawn", "spawn", "startfile", "putenv")
_DISK = ("remove", "rmdir", "chmod", "chown", "link", "symlink")
FOREIGN_EVENTS = {
    *(f"os.{name}" for name in (*_OS, *_DISK)),
    *("subprocess.Popen", "pty.spawn", "pickle.find_class", "ctypes.dlopen", "shutil.rmtree"),
    *("socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request", "webbrowser.open"),
}
_LIBRARIES = tuple(str(Path(place).resolve()) for place in sys.path if place)


class Watch(logging.Handler):
    """Record both while it is ``on``."""

    def __init__(self) -> None:
        super().__init__()
        self.on = False
        self.inside = ""  # folder of the mutant
        self.foreign: list[str] = []
        self.logged: list[str] = []
        sys.addaudithook(self.audit)

    def audit(self, event: str, arguments: tuple) -> None:
        """Record an event that only foreign code causes."""
        if not self.on:
            return
        if event in FOREIGN_EVENTS:
            if not self.inside or self.inside not in str(arguments):
                self.foreign.append(f"{event} {str(arguments)[:80]}")
        elif event == "import":
            if arguments[0].split(".")[0] == CANARY:
                self.foreign.append(f"import {arguments[0]}")
        elif event in ("exec", "compile"):
            file = str(getattr(arguments[0], "co_filename", arguments[-1]))
            if not file.startswith((*_LIBRARIES, "<frozen")) and not _importing():
                self.foreign.append(f"{event} {file[:80]}")
        elif event == "open":
            path, mode = arguments[:2]
            if isinstance(path, (str, bytes)) and isinstance(mode, str) and set(mode) & set("wax+"):
                place = os.path.realpath(os.fsdecode(path))
                if self.inside not in place and place != os.devnull:
                    self.foreign.append(f"open {place[:80]!r} {mode}")

    def emit(self, record: logging.LogRecord) -> None:
        self.logged.append(record.getMessage())


def _importing() -> bool:
    """Whether a module of the program is being imported, which runs its own code."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False

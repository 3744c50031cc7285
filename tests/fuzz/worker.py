"""Reads mutants, one per line of standard input, and writes a verdict per line.

A process of its own: a mutant that takes all memory, hangs or crashes ends it, and the runner
starts the next one.
"""

import faulthandler
import json
import logging
import os
import resource
import shutil
import signal
import sys
import time
import traceback
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType

from mindyolo_ext.errors import UserError

from .formats import MAKERS, make, sound
from .formats.pickles import CANARY
from .mutate import Files
from .readers import Reading, readings

MAX_SECONDS = 2.0  # of processor time, so that a busy machine changes no verdict
MAX_BYTES = 500 << 20  # above what the process holds at rest
NO_END_SECONDS = 20.0  # of processor time; then the process ends
MAX_WAIT_SECONDS = 300.0  # likewise, by the clock, for what waits forever
MAX_ALLOCATION = 1 << 30  # what a single allocation may ask for, above the process at rest
MAX_MESSAGE = 10_000  # characters
ACCEPTED, REFUSED, UNCLEAR = "accepted", "refused", "unclear message"
OTHER, SLOW, FAT, FOREIGN = "other exception", "slow", "fat", "foreign code"
FORBIDDEN = (UNCLEAR, OTHER, SLOW, FAT, FOREIGN)  # the last is the worst

FOREIGN_EVENTS = (
    *(
        "os.system",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "os.startfile",
    ),
    *("subprocess.Popen", "pickle.find_class", "ctypes.dlopen", "pty.spawn", "webbrowser.open"),
    *("socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request", "os.putenv"),
    *("os.remove", "os.rmdir", "os.chmod", "os.chown", "os.link", "os.symlink", "shutil.rmtree"),
)
_LIBRARIES = tuple(str(Path(place).resolve()) for place in sys.path if place)
Reader = Callable[[str, Path], Iterable[Reading]]


@dataclass
class Verdict:
    """What happened to a mutant.

    Args:
        verdict: ``accepted`` or ``refused``, as the first reading says, or the worst of
            ``FORBIDDEN`` of any reading.
        seconds: processor time of the longest reading.
        bytes: growth of memory, of all readings.
        place: for a forbidden one, where it happened: exception and file:line.
        text: its message, cut.
    """

    verdict: str
    seconds: float = 0.0
    bytes: int = 0
    place: str = ""
    text: str = ""


class Watch(logging.Handler):
    """What the program does beside returning: events of the interpreter, and what it logs."""

    def __init__(self) -> None:
        super().__init__()
        self.on = False
        self.inside = ""  # folder of the mutant
        self.foreign: list[str] = []
        self.logged: list[str] = []
        sys.addaudithook(self.audit)

    def audit(self, event: str, arguments: tuple) -> None:
        """Note an event that only foreign code causes."""
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
    """Whether a module of the program is being imported, which evaluates texts of its own."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def judged(call: Reading, folder: Path, watch: Watch) -> Verdict:
    """The verdict on one reading, without its memory."""
    start = time.process_time()
    watch.foreign.clear()
    watch.logged.clear()
    watch.inside, watch.on = str(folder), True
    try:
        shown = call()
        result = Verdict(ACCEPTED)
    except UserError as error:
        shown, result = [], _refused(error, folder)
    except Exception as error:
        kind = FAT if isinstance(error, MemoryError) else OTHER
        shown, result = [], Verdict(kind, place=_place(error), text=_text(error))
    finally:
        watch.on = False
    if result.verdict == ACCEPTED or result.verdict == REFUSED:
        unfit = next((text for text in (*shown, *watch.logged) if _control(text)), None)
        if unfit is not None:
            result = Verdict(UNCLEAR, place=f"shows {_control(unfit)}", text=repr(unfit[-300:]))
    if watch.foreign:
        result = Verdict(FOREIGN, place=watch.foreign[0], text=repr(watch.foreign)[:300])
    result.seconds = time.process_time() - start
    return result


def _refused(error: UserError, folder: Path) -> Verdict:
    """A refusal, if its message is of use and memory was not what ended the reading."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or "OutOfMemory" in str(cause):
            return Verdict(FAT, place=_place(cause), text=_text(error))
        cause = cause.__cause__ or cause.__context__
    message = str(error)
    problem = _control(message)
    if not any(name in message for name in (str(folder), *_names(folder))):
        problem = "no file named"
    elif len(message) > MAX_MESSAGE:
        problem = f"{len(message) // 1000} thousand characters"
    if problem:
        return Verdict(UNCLEAR, place=f"{problem}: {_place(error)}", text=repr(message)[:300])
    return Verdict(REFUSED)


def _text(error: BaseException) -> str:
    try:
        return repr(error)[:300]
    except MemoryError:
        return "(too long)"


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def _control(text: str) -> str:
    """The first character of ``text`` that could steer a terminal, or that cannot be printed."""
    for sign in text:
        if sign not in "\n\t" and unicodedata.category(sign) in ("Cc", "Cf", "Cs"):
            return f"U+{ord(sign):04X}"
    return ""


def _place(error: BaseException) -> str:
    """Exception and file:line: the innermost line of ours, and the innermost line of all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "mindyolo_ext" in frame.filename] or frames[-1:]
    lines = dict.fromkeys(f"{_short(f.filename)}:{f.lineno}" for f in (*ours[-1:], *frames[-1:]))
    return f"{type(error).__name__} {' in '.join(lines)}"


def _short(file: str) -> str:
    parts = Path(file).parts
    start = max(
        (i for i, part in enumerate(parts) if part == "mindyolo_ext"), default=len(parts) - 2
    )
    return "/".join(parts[start:])


def worst(verdicts: list[Verdict]) -> Verdict:
    """The worst forbidden verdict of several readings, or what the first of them says."""
    found = [one for one in verdicts if one.verdict in FORBIDDEN]
    if not found:
        return verdicts[0]
    return max(found, key=lambda one: FORBIDDEN.index(one.verdict))


def peak() -> int:
    """The most memory this process ever held, in bytes.

    Not ``ru_maxrss``, which a process on Linux takes over from the one that started it.
    """
    return 1024 * int(_of_process("status").partition("VmHWM:")[2].split()[0])


def measured(calls: Sequence[Reading], folder: Path, watch: Watch, at_rest: int) -> Verdict:
    """The verdict on all readings of a mutant; ``at_rest`` are the bytes held before the first."""
    before = peak()
    verdicts = [judged(call, folder, watch) for call in calls]
    result = worst(verdicts)
    result.seconds = max(one.seconds for one in verdicts)
    # a peak that did not move was reached by an earlier mutant, which was within the limit
    result.bytes = peak() - at_rest if peak() > before else 0
    if Path(CANARY).exists():
        Path(CANARY).unlink()
        result = replace(result, verdict=FOREIGN, place="a file was made")
    elif result.verdict in (ACCEPTED, REFUSED, UNCLEAR):
        if result.bytes > MAX_BYTES:
            result = replace(result, verdict=FAT, place=f"{folder.name}: {result.bytes >> 20} MB")
        elif result.seconds > MAX_SECONDS:
            result = replace(result, verdict=SLOW, place=f"{result.seconds:.1f} s")
    return result


def write(files: Files, folder: Path) -> None:
    """Put ``files`` into a new ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def main(home: Path, reader: Reader = readings) -> None:
    """Judge what is asked for: ``format seed number`` per line.

    Args:
        home: folder for everything that is written.
        reader: gives the calls for a format and a folder.
    """
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is no verdict
    os.chdir(home)  # attacks by relative names stay here
    warnings.simplefilter("ignore")
    logging.getLogger().handlers = [watch := Watch()]
    Path(f"{CANARY}.py").write_text("def sing(): pass\nclass Song: pass\n", encoding="utf-8")
    sys.path.insert(0, str(home))
    folder = home / "case"
    for name in MAKERS:  # everything that is imported late is there before the first mutant
        write(sound(name, 0), folder)
        for call in readings(name, folder):
            judged(call, folder, watch)
    at_rest = peak()
    mapped = int(_of_process("statm").split()[0]) * resource.getpagesize()
    limit = mapped + MAX_ALLOCATION
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    faulthandler.register(signal.SIGPROF, chain=True)  # says where, then the process ends
    for line in sys.stdin:
        name, seed, number = line.split()
        write(make(name, int(seed), int(number)), folder)
        signal.setitimer(signal.ITIMER_PROF, NO_END_SECONDS)
        faulthandler.dump_traceback_later(MAX_WAIT_SECONDS, exit=True)
        verdict = measured([*reader(name, folder)], folder, watch, at_rest)
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0)
        channel.write(json.dumps(asdict(verdict)) + "\n")


def _of_process(what: str) -> str:
    return Path("/proc/self", what).read_text(encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())

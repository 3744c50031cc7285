"""Two simulated machines on one: separate networks, process tables and host names, joined by a
cable.
"""

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from launching import ROOT, environment

ADDRESSES = ("10.77.5.1", "10.77.5.2")
NAMES = ("machine-a", "machine-b")
PROGRAMS = ("ip", "unshare", "nsenter", "hostname")
# The first process of a machine: runs each line that is written to a pipe, as a server of ssh would
SERVE = """
hostname "$0" && echo ready
while :; do
    if IFS= read -r line < "$1"; then sh -c "$line" & fi
done
"""


class NoMachines(Exception):
    """This machine does not allow creating others."""


class TwoMachines:
    """Both machines; ``close`` removes them with all their processes.

    Args:
        folder: for the script that replaces ssh, and what it needs.

    Raises: NoMachines if they cannot be created: no Linux, no rights, no iproute2.
    """

    def __init__(self, folder: Path):
        if not all(map(shutil.which, PROGRAMS)):
            raise NoMachines(f"needs {', '.join(PROGRAMS)}")
        self.holders: list[subprocess.Popen] = []
        self.first: list[int] = []  # processes, whose end is that of their machine
        # Open MPI keeps files there, named by hosts and process ids, which repeat
        self.temporary = [tempfile.mkdtemp(prefix="myx") for _ in NAMES]
        self.cables = tuple(f"myx{os.getpid()}{side}" for side in "ab")
        try:
            for machine in range(2):
                self._hold(machine, folder / f"{NAMES[machine]}.pipe")
            self._connect()
        except (subprocess.CalledProcessError, OSError, NoMachines) as error:
            self.close()
            raise NoMachines(getattr(error, "stderr", None) or str(error)) from error
        self.agent = folder / "agent.sh"
        there = shlex.quote(str(folder / f"{NAMES[1]}.pipe"))
        self.agent.write_text(f"#!/bin/sh\nshift\nprintf '%s\\n' \"$*\" > {there}\n", "utf-8")
        self.agent.chmod(0o755)

    def _hold(self, machine: int, pipe: Path) -> None:
        """Start the process that keeps a machine alive and runs what comes through ``pipe``."""
        os.mkfifo(pipe)
        spaces = ["--net", "--uts", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
        holder = subprocess.Popen(
            ["unshare", *spaces, "sh", "-c", SERVE, NAMES[machine], pipe],
            env=self._environment(machine),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.holders.append(holder)
        if not holder.stdout.readline():
            raise NoMachines(holder.communicate()[1].strip())
        children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
        self.first.append(int(children.read_text()))

    def _connect(self) -> None:
        a, b = self.cables
        _ip("link", "add", a, "type", "veth", "peer", "name", b)
        for machine, cable in enumerate(self.cables):
            _ip("link", "set", cable, "netns", str(self.first[machine]))
            self._ip_on(machine, "addr", "add", f"{ADDRESSES[machine]}/24", "dev", cable)
            for device in ("lo", cable):
                self._ip_on(machine, "link", "set", device, "up")

    def _ip_on(self, machine: int, *arguments: str) -> None:
        """``ip`` in the network of a machine."""
        subprocess.run(self.on(machine, ["ip", *arguments]), check=True, capture_output=True)

    def on(self, machine: int, command: Sequence[object]) -> list[str]:
        """``command`` as it runs on machine 0 or 1, in the project's folder."""
        enter = ["nsenter", f"--target={self.first[machine]}", "--net", "--uts", "--pid", "--mount"]
        return [*enter, f"--wd={ROOT}", "--", *map(str, command)]

    def start(self, machine: int, command: Sequence[object], output: Path) -> subprocess.Popen:
        """Start ``command`` there; its output goes to a file."""
        with output.open("w", encoding="utf-8") as file:
            return subprocess.Popen(
                self.on(machine, command),
                env=self._environment(machine),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _environment(self, machine: int) -> dict[str, str]:
        """Variables of a program there."""
        return {**environment(), "TMPDIR": self.temporary[machine]}

    def processes(self, machine: int) -> list[int]:
        """The ids of the processes there, without those that keep the machine alive."""
        network, found = os.readlink(f"/proc/{self.first[machine]}/ns/net"), []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if os.readlink(entry / "ns" / "net") == network:
                    found.append(int(entry.name))
        return sorted(set(found) - {self.first[machine], self.holders[machine].pid})

    def kill(self, machine: int) -> None:
        """End all processes there at once."""
        for number in self.processes(machine):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)

    def pull_the_cable(self) -> None:
        """Cut the connection: the second machine is silent from now on."""
        self._ip_on(1, "link", "set", self.cables[1], "down")

    def plug_the_cable_in(self) -> None:
        """Undo ``pull_the_cable``."""
        self._ip_on(1, "link", "set", self.cables[1], "up")

    def close(self) -> None:
        """Remove both machines."""
        for holder in self.holders:
            holder.kill()
            holder.communicate()
        for folder in self.temporary:
            shutil.rmtree(folder, ignore_errors=True)


def _ip(*arguments: str) -> None:
    """Run ``ip``. Raises: CalledProcessError."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)

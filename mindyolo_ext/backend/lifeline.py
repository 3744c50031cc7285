"""Connections between the machines of a run, which end it with a message if a machine is lost.

A collective operation waits for a lost rank for many minutes, or forever. So every rank on another
machine than rank 0's keeps a connection to rank 0. The operating system answers for a busy process,
so a rank that compiles for minutes does not count as lost. Loads no framework.
"""

import atexit
import hashlib
import logging
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import numpy as np

from mindyolo_ext.backend import addresses
from mindyolo_ext.backend.processes import World

logger = logging.getLogger(__name__)
SILENCE_SECONDS = 20  # without a reply, until a machine counts as lost
_PROBE_SECONDS = 5  # between two probes
_CONNECT_SECONDS = 20.0
_MPIRUN_SECONDS = 25.0
_PARTING = b"\0"  # sent by a rank that ends normally; anything else is an error message
_TOKEN_BYTES = 16
_TEXT_BYTES = 256  # size of address, port, token and name of rank 0's machine

# sums an array over the ranks
Share = Callable[[np.ndarray], np.ndarray]


def tie(this: World, share: Share, meeting_point: str, abort: Callable[[int], None]) -> int:
    """Connect this rank to rank 0 if the run has several machines. Return the number of ranks on
    this machine.

    Args:
        share: see ``Share``; every rank calls it once.
        meeting_point: host where the ranks met; if empty (unknown), nothing is connected.
        abort: ends this process and its dependents with an exit code.
    """
    if meeting_point in ("", "localhost") or addresses.is_loopback(meeting_point):
        return this.size
    with socket.create_server(("", 0), backlog=max(this.size, 16)) as listener:
        invitation = ""
        if this.rank == 0:
            own = addresses.towards(meeting_point)
            host = meeting_point if addresses.is_loopback(own) or not own else own
            token = secrets.token_hex(_TOKEN_BYTES)
            invitation = f"{host} {listener.getsockname()[1]} {token} {socket.gethostname()}"
        machines, invitation = _exchange(this, share, invitation)
        elsewhere = [r for r in range(this.size) if machines[r] != machines[0]]
        if this.rank == 0 and elsewhere:
            lines = _accepted(listener, invitation.split()[2].encode(), set(elsewhere))
        elif this.rank in elsewhere:
            lines = _connected(this.rank, invitation)
        else:
            return machines.count(machines[this.rank])
    line = Lifeline(lines, lambda message: _end(this, message, abort))
    line.start()
    atexit.register(line.part)
    return machines.count(machines[this.rank])


class Lifeline:
    """Watch connections in a thread.

    Args:
        lines: name of the peer of each connection.
        end: ends this process with a message.
    """

    def __init__(self, lines: Mapping[socket.socket, str], end: Callable[[str], None]):
        self.lines, self.end = dict(lines), end
        self.parting = False

    def start(self) -> None:
        """Start to watch."""
        selector = selectors.DefaultSelector()
        for line in self.lines:
            keep_alive(line)
            selector.register(line, selectors.EVENT_READ)
        threading.Thread(
            target=self._watch, args=(selector,), name="watch machines", daemon=True
        ).start()

    def part(self) -> None:
        """Tell the other ranks that this one ends normally, unless an exception ends it."""
        self.parting = True
        for line in list(self.lines):
            with suppress(OSError):
                if getattr(sys, "last_value", None) is None:
                    line.sendall(_PARTING)
                line.shutdown(socket.SHUT_RDWR)

    def _watch(self, selector: selectors.BaseSelector) -> None:
        """Wait for the end of each connection."""
        with selector:
            while selector.get_map():
                for key, _ in selector.select():
                    problem = self._heard(key.fileobj)
                    if problem and not self.parting:
                        self._pass_on(problem)
                        self.end(problem)
                        return
                    selector.unregister(key.fileobj)

    def _heard(self, line: socket.socket) -> str:
        """Describe what is wrong with the peer; empty if it has ended normally."""
        name = self.lines[line]
        try:
            said = line.recv(4096)
        except OSError:
            return (
                f"{name} has not replied for {SILENCE_SECONDS} s: its machine, or the network to "
                "it, is down; the run ends here too. Continue with --resume once it is back"
            )
        if said.startswith(_PARTING):
            return ""
        return said.decode(errors="replace") or (
            f"{name} has ended, or its machine has; the run ends here too. See its own output"
        )

    def _pass_on(self, problem: str) -> None:
        """Forward a message to the other ranks, which see only their own connections."""
        for line in self.lines:
            line.setblocking(False)
            with suppress(OSError):
                line.send(problem.encode())


def keep_alive(line: socket.socket) -> None:
    """Let the operating system detect that the peer of a connection is lost."""
    line.settimeout(None)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_SECONDS)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_SECONDS)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, SILENCE_SECONDS // _PROBE_SECONDS)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_SECONDS * 1000)


def _exchange(this: World, share: Share, invitation: str) -> tuple[list[int], str]:
    """Return a number per rank that is equal for ranks of one machine, and rank 0's invitation."""
    table = np.zeros(this.size + _TEXT_BYTES, np.float32)
    digest = hashlib.sha256(addresses.machine().encode()).digest()
    table[this.rank] = int.from_bytes(digest[:3], "little")  # float32 holds 24 bits
    text = invitation.encode()[:_TEXT_BYTES]
    table[this.size : this.size + len(text)] = list(text)
    table = share(table).astype(np.int64)
    return table[: this.size].tolist(), bytes(table[this.size :].tolist()).rstrip(b"\0").decode()


def _accepted(
    listener: socket.socket, token: bytes, expected: set[int]
) -> dict[socket.socket, str]:
    """Accept connections of the expected ranks until a time limit."""
    lines: dict[socket.socket, str] = {}
    until = time.monotonic() + _CONNECT_SECONDS
    while expected and (left := until - time.monotonic()) > 0:
        listener.settimeout(left)
        try:
            line, _ = listener.accept()
            line.settimeout(_PROBE_SECONDS)
            given, rank, name = line.makefile("rb").readline(256).split()
        except (OSError, ValueError):  # another program
            continue
        if secrets.compare_digest(given, token) and int(rank) in expected:
            expected.remove(int(rank))
            lines[line] = f"rank {int(rank)} on {name.decode(errors='replace')}"
    if expected:
        logger.warning(
            "rank(s) %s have not connected to rank 0; if their machine is lost, this rank hangs",
            ", ".join(map(str, sorted(expected))),
        )
    return lines


def _connected(rank: int, invitation: str) -> dict[socket.socket, str]:
    """Connect to rank 0; empty if that fails."""
    host, port, token, name = invitation.split()
    try:
        line = socket.create_connection((host, int(port)), _CONNECT_SECONDS)
        line.sendall(f"{token} {rank} {socket.gethostname()}\n".encode())
    except OSError as error:
        logger.warning(
            "rank %d cannot connect to rank 0 on %s (%s:%s, %s); if that machine is lost, this "
            "rank hangs",
            *(rank, name, host, port, error),
        )
        return {}
    return {line: f"rank 0 on {name}"}


def _end(this: World, message: str, abort: Callable[[int], None]) -> None:
    """End this process with a message."""
    logger.error("error: rank %d: %s", this.rank, message)
    if this.launcher == "mpirun":
        # The launcher ends all ranks once it notices. If it were asked before, it would first wait
        # for the ranks of the lost machine
        time.sleep(_MPIRUN_SECONDS)
    abort(1)

"""Connections between the machines of a run, so that it ends, with a message, if one goes away.

A sum over the ranks waits for a rank that is gone for many minutes, or forever. So every rank on
another machine than rank 0 keeps a connection to it. The operating systems answer for processes
that are busy: a rank that compiles for minutes is not taken for dead. No framework.
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
SILENCE_SECONDS = 20  # without an answer, until a machine counts as gone
_PROBE_SECONDS = 5  # between two questions whether it is there
_CONNECT_SECONDS = 20.0
_MPIRUN_SECONDS = 25.0
_PARTING = b"\0"  # the last word of a rank that ends in order; anything else is an error message
_TOKEN_BYTES = 16
_TEXT_BYTES = 256  # of address, port, token and name of rank 0's machine

# the sum of an array over the ranks
Share = Callable[[np.ndarray], np.ndarray]


def tie(this: World, share: Share, meeting_point: str, abort: Callable[[int], None]) -> int:
    """Connect this rank with rank 0, if the run has several machines; returns how many ranks are
    on this one.

    Args:
        share: see ``Share``; every rank calls it once.
        meeting_point: host at which the ranks have met; empty if unknown, and nothing happens.
        abort: ends this process, and what else has to end with it, with an exit code.
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
    """Watches connections in a thread.

    Args:
        lines: names of those at the other ends.
        end: ends this process; takes a message.
    """

    def __init__(self, lines: Mapping[socket.socket, str], end: Callable[[str], None]):
        self.lines, self.end = dict(lines), end
        self.parting = False

    def start(self) -> None:
        """Begin to watch."""
        selector = selectors.DefaultSelector()
        for line in self.lines:
            keep_alive(line)
            selector.register(line, selectors.EVENT_READ)
        threading.Thread(
            target=self._watch, args=(selector,), name="watch machines", daemon=True
        ).start()

    def part(self) -> None:
        """Tell the others that this rank has ended in order, unless an exception ends it."""
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
        """What is wrong at the other end; empty if it has ended in order."""
        name = self.lines[line]
        try:
            said = line.recv(4096)
        except OSError:
            return (
                f"{name} has not answered for {SILENCE_SECONDS} s: its machine, or the network to "
                "it, is down; the run ends here too. Go on with --resume once it is back"
            )
        if said.startswith(_PARTING):
            return ""
        return said.decode(errors="replace") or (
            f"{name} has ended, or its machine has; the run ends here too. Its own output says why"
        )

    def _pass_on(self, problem: str) -> None:
        """Tell the others, who know of their own connections only."""
        for line in self.lines:
            line.setblocking(False)
            with suppress(OSError):
                line.send(problem.encode())


def keep_alive(line: socket.socket) -> None:
    """Let the operating system notice that the other end of a connection is gone."""
    line.settimeout(None)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_SECONDS)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_SECONDS)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, SILENCE_SECONDS // _PROBE_SECONDS)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_SECONDS * 1000)


def _exchange(this: World, share: Share, invitation: str) -> tuple[list[int], str]:
    """A number for the machine of every rank, equal for equal machines, and rank 0's invitation."""
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
    """The connections of the expected ranks, as far as they come in time."""
    lines: dict[socket.socket, str] = {}
    until = time.monotonic() + _CONNECT_SECONDS
    while expected and (left := until - time.monotonic()) > 0:
        listener.settimeout(left)
        try:
            line, _ = listener.accept()
            line.settimeout(_PROBE_SECONDS)
            given, rank, name = line.makefile("rb").readline(256).split()
        except (OSError, ValueError):  # somebody else
            continue
        if secrets.compare_digest(given, token) and int(rank) in expected:
            expected.remove(int(rank))
            lines[line] = f"rank {int(rank)} on {name.decode(errors='replace')}"
    if expected:
        logger.warning(
            "rank(s) %s have not connected to rank 0; if their machine goes away, this one waits",
            ", ".join(map(str, sorted(expected))),
        )
    return lines


def _connected(rank: int, invitation: str) -> dict[socket.socket, str]:
    """The connection with rank 0, if it comes about."""
    host, port, token, name = invitation.split()
    try:
        line = socket.create_connection((host, int(port)), _CONNECT_SECONDS)
        line.sendall(f"{token} {rank} {socket.gethostname()}\n".encode())
    except OSError as error:
        logger.warning(
            "rank %d cannot connect to rank 0 on %s (%s:%s, %s); if that machine goes away, this "
            "one waits",
            *(rank, name, host, port, error),
        )
        return {}
    return {line: f"rank 0 on {name}"}


def _end(this: World, message: str, abort: Callable[[int], None]) -> None:
    """End this process with a message."""
    logger.error("error: rank %d: %s", this.rank, message)
    if this.launcher == "mpirun":
        # It ends all ranks itself once it notices. Asked before, it would first wait for those of
        # the machine that is gone
        time.sleep(_MPIRUN_SECONDS)
    abort(1)

"""Connections between the ranks of several machines, here between threads;
tests/engine/test_two_machines.py has real machines.
"""

import queue
import socket
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from mindyolo_ext.backend import lifeline
from mindyolo_ext.backend.lifeline import SILENCE_SECONDS, Lifeline
from mindyolo_ext.backend.processes import World

WAIT = 30.0  # only for a test that fails


class Ends:
    """Both ends of rank 0's connections with ranks 2 and 3."""

    def __init__(self):
        self.problems: queue.Queue[str] = queue.Queue()
        pairs = {rank: socket.socketpair() for rank in (2, 3)}
        self.theirs = {rank: theirs for rank, (_, theirs) in pairs.items()}
        lines = {ours: f"rank {rank} on b" for rank, (ours, _) in pairs.items()}
        self.line = Lifeline(lines, self.problems.put)
        for theirs in self.theirs.values():
            theirs.settimeout(WAIT)

    def close(self) -> None:
        for line in (*self.line.lines, *self.theirs.values()):
            line.close()


@pytest.fixture
def ends(monkeypatch) -> Iterator[Ends]:
    monkeypatch.setattr(lifeline, "keep_alive", lambda line: line.settimeout(None))
    found = Ends()
    found.line.start()
    yield found
    found.close()


def test_a_rank_that_is_gone_ends_the_others_with_its_name(ends):
    ends.theirs[3].close()
    problem = ends.problems.get(timeout=WAIT)
    assert problem.startswith("rank 3 on b has ended, or its machine has; the run ends here too")
    assert ends.theirs[2].recv(4096).decode() == problem


def test_ranks_that_end_in_order_end_nobody(ends):
    ends.theirs[2].sendall(b"\0")
    ends.theirs[2].close()
    ends.theirs[3].sendall(b"rank 9 has not answered")
    assert ends.problems.get(timeout=WAIT) == "rank 9 has not answered"
    assert ends.problems.empty()


def test_what_a_rank_says_at_its_end(ends, monkeypatch):
    ends.line.part()
    assert ends.theirs[2].recv(10) == b"\0" and ends.theirs[2].recv(10) == b""
    assert ends.problems.empty()
    other = Ends()
    monkeypatch.setattr(sys, "last_value", ValueError(), raising=False)
    other.line.part()
    assert other.theirs[2].recv(10) == b"", "an exception ends this rank, so the others end too"
    other.close()


def test_a_machine_that_is_silent():
    class Silent:
        def recv(self, _):
            raise TimeoutError

    line = Silent()
    problem = Lifeline({line: "rank 2 on b"}, print)._heard(line)
    assert problem.startswith(f"rank 2 on b has not replied for {SILENCE_SECONDS} s: its machine")


@pytest.mark.skipif(sys.platform != "linux", reason="how long depends on the system elsewhere")
def test_the_system_asks_whether_the_other_end_is_there():
    with socket.socket() as line:
        lifeline.keep_alive(line)
        get = [
            line.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        ]
        assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert get[0] + get[1] * get[2] < 30
        assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) < 30_000


def test_ranks_of_several_machines_are_tied_to_rank_0(monkeypatch):
    """Ranks 0 and 1 on one machine, 2 and 3 on another."""
    size, here = 4, threading.local()
    tables, ready = [np.zeros(0)] * size, threading.Barrier(size)
    ended: queue.Queue[tuple[int, str]] = queue.Queue()
    started: dict[int, Lifeline] = {}
    monkeypatch.setattr(lifeline.addresses, "machine", lambda: f"machine {here.rank // 2}")
    monkeypatch.setattr(lifeline.addresses, "towards", lambda _: "127.0.0.1")
    monkeypatch.setattr(lifeline.addresses, "is_loopback", lambda _: False)
    monkeypatch.setattr(lifeline.atexit, "register", lambda _: None)
    monkeypatch.setattr(lifeline, "_end", lambda this, *found: ended.put((this.rank, found[0])))
    monkeypatch.setattr(
        lifeline.Lifeline, "start", lambda line: started.__setitem__(here.rank, line)
    )

    def share(table: np.ndarray) -> np.ndarray:
        assert table.dtype == np.float32
        tables[here.rank] = table
        ready.wait(WAIT)
        return sum(tables)

    def rank(number: int) -> None:
        here.rank = number
        lifeline.tie(World(number, size, "mpirun"), share, "127.0.0.1", print)

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    names = {number: sorted(line.lines.values()) for number, line in started.items()}
    host = socket.gethostname()
    assert names == {
        0: [f"rank 2 on {host}", f"rank 3 on {host}"],
        2: [f"rank 0 on {host}"],
        3: [f"rank 0 on {host}"],
    }
    started[3].end("gone")
    assert ended.get(timeout=WAIT) == (3, "gone")
    for line in started.values():
        for connection in line.lines:
            connection.close()


@pytest.mark.parametrize("meeting_point", ["", "localhost", "127.0.0.1", "::1"])
def test_one_machine_has_no_connections(meeting_point):
    def share(_):
        raise AssertionError("costs nothing there")

    lifeline.tie(World(0, 2, "mpirun"), share, meeting_point, print)


def test_the_end_of_a_run(monkeypatch, caplog):
    waits, codes = [], []
    monkeypatch.setattr(lifeline.time, "sleep", waits.append)
    for launcher in ("msrun", "mpirun"):
        lifeline._end(World(1, 4, launcher), "rank 2 on b is gone", codes.append)
    assert codes == [1, 1] and len(waits) == 1, "mpirun itself ends the ranks if it can"
    assert SILENCE_SECONDS + 5 + waits[0] < 60
    assert caplog.messages == ["error: rank 1: rank 2 on b is gone"] * 2

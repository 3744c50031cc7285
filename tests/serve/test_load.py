"""Too many clients, slow clients, clients that disconnect, and the end of the server."""

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")
pytest.importorskip("python_multipart")
from web_server import PATIENCE, Reply, Running, StandIn, photo, running

from mindyolo_ext.serve import run
from mindyolo_ext.serve.limits import Limits


@contextlib.contextmanager
def busy(
    server: Running, clients: int, *, already: int = 0, query: str = ""
) -> Iterator[list["Future[Reply]"]]:
    """Clients that wait for the network, which returns at the end; ``already``: other clients that
    wait.
    """
    server.detector.gate.clear()
    with ThreadPoolExecutor(clients) as pool:
        try:
            asked = [pool.submit(server.ask, f"/predict{query}", photo()) for _ in range(clients)]
            assert already or server.detector.entered.acquire(timeout=PATIENCE)
            wait_until(server, already + clients)
            wait_for_decoded(server, already + clients)
            yield asked
        finally:
            server.detector.gate.set()


def wait_until(server: Running, queue: int, status: int = 200) -> dict:
    """Poll the health until the queue is ``queue`` long and the status is ``status``."""
    pause = threading.Event()
    for _ in range(1000):
        answer = server.ask("/health")
        if (answer.json()["queue"], answer.status) == (queue, status):
            return answer.json()
        pause.wait(PATIENCE / 1000)
    pytest.fail(f"wanted a queue of {queue} and {status}, got {answer}")


def wait_for_decoded(server: Running, clients: int) -> None:
    """Wait until the images of ``clients`` are decoded, as many as may be at a time."""
    behind = min(server.service.limits.open_images, clients) - 1  # one is in the network
    pause = threading.Event()
    while server.service.network.waiting < behind:
        pause.wait(PATIENCE / 1000)


def connect(server: Running, text: bytes) -> socket.socket:
    """A connection on which ``text`` was sent."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
    connection.sendall(text)
    return connection


def rest_of(connection: socket.socket) -> bytes:
    """What arrives until the server closes or resets the connection."""
    with contextlib.suppress(ConnectionResetError):
        return connection.recv(65536)
    return b""


def test_one_client_too_many_is_told_when_to_come_back():
    with running(limits=Limits(queue=3)) as server:
        with busy(server, 3) as asked:
            answer = server.ask(body=bytes(1 << 20))
            assert answer.status == 503 and int(answer.headers["retry-after"]) >= 1
            assert "the queue of 3 images is full" in answer.json()["error"]
            assert server.ask("/health").status == server.ask("/").status == 200
        assert [one.result().status for one in asked] == [200] * 3
        assert server.ask(body=photo()).status == 200


def test_few_images_are_decoded_at_a_time(monkeypatch: pytest.MonkeyPatch):
    from mindyolo_ext.serve import service

    decoded, decode_image = [], service.decode_image

    def counted(*arguments):
        decoded.append(1)
        return decode_image(*arguments)

    monkeypatch.setattr(service, "decode_image", counted)
    with running(limits=Limits(open_images=2)) as server:
        with busy(server, 6) as asked:
            assert len(decoded) <= 2
        assert {one.result().status for one in asked} == {200} and len(decoded) == 6


@pytest.mark.parametrize(("clients", "batches"), [(6, [4]), (3, [2]), (2, []), (9, [4, 4])])
def test_images_that_wait_share_a_run_that_is_half_full(clients: int, batches: list[int]):
    with running(StandIn(batch=4), Limits(open_images=16)) as server:
        with busy(server, 1) as first, busy(server, clients - 1, already=1) as others:
            pass
        assert {one.result().status for one in [*first, *others]} == {200}
        assert server.detector.batches == batches


def test_images_with_other_thresholds_have_runs_of_their_own():
    with running(StandIn(batch=4), Limits(open_images=16)) as server:
        with (
            busy(server, 1) as first,
            busy(server, 2, already=1, query="?conf=0.5") as strict,
            busy(server, 2, already=3) as usual,
        ):
            pass
        found = [len(one.result().json()["detections"]) for one in [*first, *strict, *usual]]
        assert found == [3, 2, 2, 3, 3] and server.detector.batches == [2, 2]


def test_a_fault_of_a_shared_run_is_not_everyones():
    class Small(StandIn):
        def predict(self, image):
            if isinstance(image, list):
                raise MemoryError
            return super().predict(image)

    with running(Small(batch=2), Limits(open_images=16)) as server:
        with busy(server, 1) as first, busy(server, 2, already=1) as others:
            pass
        assert [one.result().status for one in [*first, *others]] == [200] * 3


def test_a_network_that_does_not_come_back_is_told():
    with running(limits=Limits(answer_seconds=0.05)) as server:
        with busy_and_given_up(server) as answer:
            assert answer.status == 503 and answer.headers["retry-after"]
            assert "no result within 0.05 s" in answer.json()["error"]
            assert "on one image" in wait_until(server, 0, 503)["status"]
        assert wait_until(server, 0)["status"] == "ok"


@contextlib.contextmanager
def busy_and_given_up(server: Running) -> Iterator[Reply]:
    """The answer for an image that the network has not returned."""
    server.detector.gate.clear()
    yield server.ask(body=photo())
    server.detector.gate.set()


@pytest.mark.parametrize("open_images", [1, 3])
def test_the_image_of_a_client_that_left_is_not_looked_at(open_images: int):
    with running(limits=Limits(open_images=open_images)) as server:
        with busy(server, 1) as asked:
            data = photo()
            head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
            connection = connect(server, head.encode() + data)
            wait_until(server, 2)
            wait_for_decoded(server, 2)
            connection.close()
            wait_until(server, 1)
        assert asked[0].result().status == 200
        assert server.ask(body=photo()).status == 200
        assert len(server.detector.calls) == 2


def test_a_client_that_leaves_in_the_middle_of_its_image_takes_no_place():
    with running() as server:
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n0123456789"
        connection = connect(server, head)
        wait_until(server, 1)
        connection.close()
        wait_until(server, 0)
        lines = server.ask("/metrics").body.decode()
        assert 'path="/predict",status="499"} 1.0' in lines


def test_a_slow_upload_is_ended():
    with running(limits=Limits(upload_seconds=0.05)) as server:
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n0123456789"
        with connect(server, head) as connection:
            answer = connection.recv(65536).decode()
        assert answer.startswith("HTTP/1.1 408") and server.ask("/health").json()["queue"] == 0


@pytest.mark.parametrize("text", [b"", b"POST /predict HTTP/1.1\r\nHos"])
def test_a_head_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, text: bytes):
    monkeypatch.setattr(run, "PATIENCE_SECONDS", 0.05)
    with running() as server:
        with connect(server, text) as connection:
            assert rest_of(connection) == b""
        assert server.ask(body=photo()).status == 200


def test_a_second_head_on_a_connection_is_not_waited_for_either(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "PATIENCE_SECONDS", 0.05)
    head = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with running() as server, connect(server, head) as connection:
        answer = connection.recv(65536)
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
        connection.sendall(b"GET /he")
        assert rest_of(connection) == b""


def test_the_rest_of_a_refused_request_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "PATIENCE_SECONDS", 0.05)
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99000000\r\n\r\n"
    with running() as server, connect(server, head) as connection:
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413")
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
        connection.sendall(b"x")
        assert rest_of(connection) == b""


def test_images_under_way_are_answered_when_the_server_ends():
    with running() as server:
        with busy(server, 3) as asked:
            server.server.should_exit = True
        assert [one.result().status for one in asked] == [200] * 3


def test_the_address_is_told_when_clients_can_connect(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO), running() as server:
        assert server.server.started
    assert run.allowed_hosts("127.0.0.1") == run.LOOPBACK and run.allowed_hosts("0.0.0.0") == ("*",)
    with run.open_address("127.0.0.1", 0) as opened:
        port = opened.getsockname()[1]
        assert opened.proto == socket.IPPROTO_TCP  # otherwise asyncio does not set TCP_NODELAY
        assert run.address_of(opened, "127.0.0.1") == f"http://127.0.0.1:{port}"
        assert run.address_of(opened, "0.0.0.0") == f"http://{socket.gethostname()}:{port}"
        assert run.address_of(opened, "::1") == f"http://[::1]:{port}"

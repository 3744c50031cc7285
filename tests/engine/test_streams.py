"""Images and videos that are not local files, from a server in this process."""

import base64
import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from mindyolo_ext.engine import streams
from mindyolo_ext.engine.detections import Detections
from mindyolo_ext.engine.predict_job import PredictOptions, predict_sources
from mindyolo_ext.engine.remote import Remote
from mindyolo_ext.engine.streams import open_remote
from mindyolo_ext.engine.video import VideoReader
from mindyolo_ext.errors import DataError, UsageError

HEIGHT, WIDTH = 48, 64
IMAGE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
PNG = cv2.imencode(".png", IMAGE)[1].tobytes()
Page = tuple[int, dict[str, str], bytes]


class Site:
    """A server: pages by path, and the requests that it received."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.requests.append((self.path, dict(self.headers)))
                status, headers, body = site.pages.get(self.path, (404, {}, b""))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def add(self, path: str, body: bytes = b"", status: int = 200, **headers: str) -> str:
        """Add a page and return its address."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.pages[path] = status, named, body
        return self.address + path


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    found = Site()
    yield found
    found.server.shutdown()
    found.server.server_close()


def video(path: Path, frames: int = 4, code: str = "mp4v") -> bytes:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 25.0, (WIDTH, HEIGHT))
    for gray in range(frames):
        writer.write(np.full((HEIGHT, WIDTH, 3), 40 * gray + 20, np.uint8))
    writer.release()
    return path.read_bytes()


class OneBox:
    """Find the upper left quarter of every image."""

    def routing(self) -> str:
        return ""

    def predict(self, image: np.ndarray) -> Detections:
        box = np.array([[0, 0, WIDTH / 2, HEIGHT / 2]], np.float32)
        return Detections(image, box, np.array([0.9], np.float32), np.array([0]), ["cat"])


# ---- images --------------------------------------------------------------------------------------


def test_image_of_an_address(site: Site) -> None:
    for path in ("/a.png", "/no-suffix?width=3&name=%C3%A4"):
        np.testing.assert_array_equal(open_remote(Remote(site.add(path, PNG))), IMAGE)
    site.add("/%C3%A4%20b.png", PNG)
    np.testing.assert_array_equal(open_remote(Remote(f"{site.address}/ä b.png")), IMAGE)


def test_redirects_lead_to_http_alone(site: Site, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PNG)
    site.add("/a.png", PNG)
    moved = site.add("/moved", status=302, Location="/a.png")
    np.testing.assert_array_equal(open_remote(Remote(moved)), IMAGE)
    for place in ((tmp_path / "secret.png").as_uri(), "ftp://127.0.0.1/a.png", "data:,a"):
        away = site.add("/away", status=302, Location=place)
        with pytest.raises(DataError, match="/away: cannot be fetched"):
            open_remote(Remote(away))
    loop = site.add("/loop", status=302, Location="/loop")
    with pytest.raises(DataError, match="cannot be fetched"):
        open_remote(Remote(loop))


def test_password_goes_to_its_host_alone_and_into_no_message(site: Site) -> None:
    other = site.add("/b.png", PNG).replace("127.0.0.1", "localhost")
    remote = Remote(site.add("/a", status=302, Location=other).replace("://", "://me:p%40ss@"))
    open_remote(remote)
    (_, first), (_, second) = site.requests
    assert first["Authorization"] == "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert "Authorization" not in second
    assert "p%40ss" not in str(remote) and "me" not in remote.name


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ((404, {}, b""), "cannot be fetched .Not Found"),
        ((200, {}, b"<html>no</html>"), r"page \(text/html\): wanted a readable image"),
        ((200, {}, b""), "got an empty answer"),
        ((200, {}, PNG[:60]), "wanted a readable image"),
        ((200, {"Content-Length": "9999"}, PNG), "incomplete, [0-9]+ bytes are missing"),
        ((200, {"Content-Length": "many"}, PNG), None),
    ],
)
def test_answers_that_are_no_image(site: Site, page: Page, message: str | None) -> None:
    status, headers, body = page
    address = site.add("/page", body, status, **{"Content_Type": "text/html"})
    site.pages["/page"][1].update(headers)
    if message is None:
        np.testing.assert_array_equal(open_remote(Remote(address)), IMAGE)
        return
    with pytest.raises(DataError, match=message):
        open_remote(Remote(address))


def test_limits_of_size_and_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = Remote(site.add("/a.png", PNG))
    with monkeypatch.context() as patch:
        patch.setattr(streams, "MAX_BYTES", 100)
        with pytest.raises(DataError, match="a.png: wanted an image of at most 0 MiB"):
            open_remote(remote)
    monkeypatch.setattr(streams, "MAX_SECONDS", -1.0)
    with pytest.raises(DataError, match="a.png: wanted an image within -1 s"):
        open_remote(remote)


def test_nobody_answers(site: Site) -> None:
    address = site.address
    site.server.server_close()
    with pytest.raises(DataError, match="a.png: cannot be fetched"):
        open_remote(Remote(f"{address}/a.png"))


@pytest.mark.parametrize("address", ["http://", "http:///a.jpg", "http://h:x/", "http://[::1/a"])
def test_address_that_makes_no_sense(address: str) -> None:
    with pytest.raises(UsageError, match="wanted SCHEME://HOST"):
        Remote(address)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Input(io.TextIOWrapper):
        def isatty(self) -> bool:
            return self.buffer.getbuffer().nbytes == 0

    monkeypatch.setattr(sys, "stdin", Input(io.BytesIO(PNG)))
    np.testing.assert_array_equal(open_remote(Remote("-")), IMAGE)
    monkeypatch.setattr(sys, "stdin", Input(io.BytesIO(b"no image")))
    with pytest.raises(DataError, match="standard input: wanted a readable image"):
        open_remote(Remote("-"))
    monkeypatch.setattr(sys, "stdin", Input(io.BytesIO()))
    with pytest.raises(UsageError, match="predict - < photo.jpg"):
        open_remote(Remote("-"))
    monkeypatch.setattr(streams, "MAX_BYTES", 100)
    monkeypatch.setattr(sys, "stdin", Input(io.BytesIO(PNG)))
    with pytest.raises(DataError, match="standard input: wanted an image of at most"):
        open_remote(Remote("-"))


# ---- streams -------------------------------------------------------------------------------------


def test_stream_of_an_address(site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    content = video(tmp_path / "a.mp4", 5)
    address = site.add("/live", content, Content_Type="video/mp4")
    options = PredictOptions(vid_stride=2, save_txt=True)
    rows = predict_sources(OneBox(), address, tmp_path / "out", options)
    assert rows == {"live.jpg": []}
    lines = (tmp_path / "out" / "live.jsonl").read_text().splitlines()
    assert [json.loads(line)["frame"] for line in lines] == [0, 1, 2]
    assert json.loads(lines[0])["found"][0]["name"] == "cat"
    labels = sorted(p.name for p in (tmp_path / "out" / "labels" / "live.mp4").iterdir())
    assert labels == ["0.txt", "1.txt", "2.txt"]
    copy = cv2.VideoCapture(str(tmp_path / "out" / "live.mp4"))
    assert copy.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert "live: 3 frames" in caplog.text


def test_motion_jpeg(site: Site) -> None:
    part = cv2.imencode(".jpg", IMAGE)[1].tobytes()
    head = b"--x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(part)
    body = (head + part + b"\r\n") * 3 + b"--x--\r\n"
    address = site.add("/cam", body, Content_Type="multipart/x-mixed-replace; boundary=x")
    with open_remote(Remote(address)) as frames:
        assert [frame.shape for _, frame in frames] == [(HEIGHT, WIDTH, 3)] * 3


def test_ctrl_c_ends_a_stream_and_keeps_what_came(site: Site, tmp_path: Path) -> None:
    address = site.add("/a.mp4", video(tmp_path / "a.mp4", 4))

    class Stopping(OneBox):
        left = 3

        def predict(self, image: np.ndarray) -> Detections:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
            return super().predict(image)

    predict_sources(Stopping(), address, tmp_path / "out")
    assert len((tmp_path / "out" / "a.jsonl").read_text().splitlines()) == 2
    copy = cv2.VideoCapture(str(tmp_path / "out" / "a.mp4"))
    assert copy.get(cv2.CAP_PROP_FRAME_COUNT) == 2


def test_rows_of_a_stream_are_never_overwritten(site: Site, tmp_path: Path) -> None:
    address = site.add("/a.mp4", video(tmp_path / "a.mp4"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.jsonl").write_text("of a run that was killed")
    predict_sources(OneBox(), address, tmp_path / "out")
    assert (tmp_path / "out" / "a.jsonl").read_text() == "of a run that was killed"
    assert len((tmp_path / "out2" / "a.jsonl").read_text().splitlines()) == 4


def test_stream_without_a_frame_leaves_nothing(site: Site, tmp_path: Path) -> None:
    for address in (site.add("/a.mp4", b"no video"), "rtsp://me:secret@127.0.0.1:1/none"):
        with pytest.raises(
            DataError, match="none of 1 files could be read; .*does not answer"
        ) as e:
            predict_sources(OneBox(), address, tmp_path / "out")
        assert "secret" not in str(e.value)
        assert not (tmp_path / "out").exists()


def frames_of(remote: Remote) -> int:
    try:
        with open_remote(remote) as frames:
            return len(list(frames))
    except DataError:
        return 0


def test_playlist_of_an_address_opens_no_file_here(site: Site, tmp_path: Path) -> None:
    piece = tmp_path / "piece.mp4"
    content = video(piece)
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
    there = site.add("/piece.mp4", content)
    address = site.add("/list.m3u8", playlist.format(there).encode())
    assert frames_of(Remote(address)) > 0  # so that playlists are read at all
    for place in (piece.as_uri(), f"file:{piece}", str(piece), f"concat:{piece}"):
        site.add("/list.m3u8", playlist.format(place).encode())
        assert frames_of(Remote(address)) == 0, place


def test_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video(tmp_path / "a.mp4")
    capture, asked = cv2.VideoCapture, []

    def opened(number: int) -> cv2.VideoCapture:
        asked.append(number)
        return capture(str(tmp_path / "a.mp4"))

    monkeypatch.setattr(cv2, "VideoCapture", opened)
    with VideoReader("1", stride=3) as camera:
        assert camera.is_live and not camera.announced
        assert [number for number, _ in camera] == [0, 1]
    assert asked == [1]

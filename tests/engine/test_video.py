"""Videos: every readable frame with its number, and copies that are complete or absent."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from mindyolo_ext.engine import video_copy
from mindyolo_ext.engine.video import MOST_BAD_FRAMES, VideoReader
from mindyolo_ext.engine.video_copy import copying
from mindyolo_ext.errors import DataError, MissingFileError, WriteError

SIZE = (48, 64)
GRAYS = [20 * number for number in range(1, 11)]


def make_video(path: Path, frames: int = 10, code: str = "MJPG") -> Path:
    """Plain gray frames, each brighter than the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 25.0, SIZE[::-1])
    assert writer.isOpened()
    for gray in GRAYS[:frames]:
        writer.write(np.full((*SIZE, 3), gray, np.uint8))
    writer.release()
    return path


def frame_starts(content: bytes) -> list[int]:
    """The offsets of the ten frames of a Motion JPEG."""
    starts, place = [], content.find(b"movi")
    while (place := content.find(b"00dc", place + 1)) > 0 and len(starts) < 10:
        starts.append(place)
    return starts


def wipe(path: Path, *numbers: int) -> None:
    """Overwrite frames of a Motion JPEG with zeros."""
    content = bytearray(path.read_bytes())
    starts = frame_starts(content)
    for number in numbers:
        begin = starts[number] + 8
        end = starts[number + 1] if number < 9 else begin + 400
        content[begin:end] = bytes(end - begin)
    path.write_bytes(content)


def read(path: Path) -> tuple[dict[int, int], str]:
    """The number in ``GRAYS`` that each frame shows, by frame number, and the shortfall."""
    with VideoReader(path) as video:
        found = {
            number: int(np.abs(np.array(GRAYS) - frame.mean()).argmin()) for number, frame in video
        }
        return found, video.shortfall()


@pytest.mark.parametrize(("name", "code"), [("a.avi", "MJPG"), ("a.mp4", "mp4v")])
def test_whole_video(tmp_path: Path, name: str, code: str) -> None:
    assert read(make_video(tmp_path / name, code=code)) == ({k: k for k in range(10)}, "")


@pytest.mark.parametrize("bad", [(4,), (4, 5), (0,), (0, 1, 7)])
def test_damaged_frames_are_passed_over_and_the_others_keep_their_numbers(
    tmp_path: Path, bad: tuple[int, ...]
) -> None:
    path = make_video(tmp_path / "a.avi")
    wipe(path, *bad)
    found, shortfall = read(path)
    assert found == {k: k for k in range(10) if k not in bad}
    assert f"a.avi: {10 - len(bad)} of 10 announced frames could be read" in shortfall


@pytest.mark.parametrize("text", ["#EXTM3U\n#EXTINF:1,\n{}\n", "ffconcat version 1.0\nfile {}\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_playlist_opens_no_other_file(tmp_path: Path, text: str, mark: bytes) -> None:
    path = make_video(tmp_path / "a.avi")
    (tmp_path / "b.mp4").write_bytes(mark + text.format(path.name).encode())
    with pytest.raises(DataError, match="b.mp4: wanted one of .*, got text; a playlist is not"):
        VideoReader(tmp_path / "b.mp4")


def test_video_that_breaks_off(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.avi")
    content = path.read_bytes()
    path.write_bytes(content[: frame_starts(content)[6]])
    found, shortfall = read(path)
    assert found == {k: k for k in range(6)}
    assert "6 of 10 announced frames" in shortfall


class Announcing:
    """Stands in for OpenCV's reader: announces endless frames and has two."""

    def __init__(self, *_: object):
        self.calls = 0

    def isOpened(self) -> bool:
        return True

    def get(self, what: int) -> float:
        values = {cv2.CAP_PROP_FRAME_COUNT: 2.0**31, cv2.CAP_PROP_FPS: float("nan")}
        return values.get(what, 10.0)

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.calls += 1
        return (True, np.zeros((10, 10, 3), np.uint8)) if self.calls < 3 else (False, None)

    def release(self) -> None:
        pass


def test_announced_frames_that_never_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").touch()
    monkeypatch.setattr(cv2, "VideoCapture", Announcing)
    with VideoReader(tmp_path / "a.mp4") as video:
        assert [number for number, _ in video] == [0, 1]
        assert video._capture.calls == 2 + MOST_BAD_FRAMES + 1
        assert "2 of 2147483648 announced" in video.shortfall()
        assert video.rate == 25.0


def test_frames_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "a.avi")
    monkeypatch.setattr("mindyolo_ext.engine.video.MAX_PIXELS", SIZE[0] * SIZE[1] - 1)
    with pytest.raises(DataError, match="a.avi: wanted frames of at most .* got 64x48"):
        VideoReader(path)


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"this is no video\0")
    with pytest.raises(DataError, match="a.mp4: OpenCV cannot read it; wanted one of .mp4, "):
        VideoReader(tmp_path / "a.mp4")
    with pytest.raises(MissingFileError, match="video .*b.mp4: no such file"):
        VideoReader(tmp_path / "b.mp4")


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    strange = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xd5\xd5"))
    strange.mkdir()
    source = make_video(tmp_path / "a.avi").rename(strange / "a.avi")
    with VideoReader(source) as video, copying(strange / "b.mp4", video.rate) as copy:
        for _, frame in video:
            copy.add(frame)
    assert sorted(os.listdir(strange)) == ["a.avi", "b.mp4"]
    assert len(read(strange / "b.mp4")[0]) == 10


def test_copy_repeats_frames_and_keeps_one_size(tmp_path: Path) -> None:
    with copying(tmp_path / "a.mp4", 12.0) as copy:
        copy.add(np.full((*SIZE, 3), GRAYS[3], np.uint8), times=3)
        copy.add(np.full((90, 30, 3), GRAYS[8], np.uint8))
    assert read(tmp_path / "a.mp4") == ({0: 3, 1: 3, 2: 3, 3: 8}, "")
    with VideoReader(tmp_path / "a.mp4") as video:
        assert video.rate == pytest.approx(12.0)


def test_copy_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.mp4"
    target.write_bytes(b"the old one")
    frame = np.zeros((*SIZE, 3), np.uint8)

    def interrupted() -> None:
        with copying(target, 25.0) as copy:
            copy.add(frame)
            raise KeyboardInterrupt

    def of_a_full_disk() -> None:
        with copying(target, 25.0) as copy:
            copy.add(frame)
            monkeypatch.setattr(video_copy, "_count_frames", lambda _: 0)

    def of_no_size() -> None:
        with copying(target, 25.0) as copy:
            copy.add(np.zeros((1, 1, 3), np.uint8))
            copy.add(frame)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(
        WriteError, match="a.mp4: cannot be written, OpenCV cannot write MP4 of 1x1"
    ):
        of_no_size()
    with pytest.raises(WriteError, match="0 of 1 frames were written; is the disk full"):
        of_a_full_disk()
    assert target.read_bytes() == b"the old one"
    assert os.listdir(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("size", [SIZE, (49, 65), (2, 2)])
def test_copy_in_h264(tmp_path: Path, size: tuple[int, int]) -> None:
    pytest.importorskip("av")
    with copying(tmp_path / "a.mp4", 12.5) as copy:
        for gray in GRAYS:
            copy.add(np.full((*size, 3), gray, np.uint8))
    assert read(tmp_path / "a.mp4") == ({k: k for k in range(10)}, "")
    capture = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    code = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little")
    assert code in (b"h264", b"avc1") and capture.get(cv2.CAP_PROP_FPS) == 12.5
    frame = capture.read()[1]
    assert frame.shape[:2] == (size[0] // 2 * 2, size[1] // 2 * 2)
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # plays during the download


def test_copy_without_the_package_for_h264(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_copy, "_has_h264", lambda: False)
    with copying(tmp_path / "a.mp4", 12.0) as copy:
        copy.add(np.full((*SIZE, 3), GRAYS[3], np.uint8))
    capture = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    assert int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little") in (b"mp4v", b"FMP4")
    assert capture.read()[0]


def test_h264_on_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    monkeypatch.setattr(
        video_copy._H264Writer, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "full"))
    )
    with pytest.raises(WriteError, match="a.mp4: cannot be written, .*full"):  # noqa: SIM117
        with copying(tmp_path / "a.mp4", 12.0) as copy:
            copy.add(np.full((*SIZE, 3), GRAYS[3], np.uint8))
            copy.add(np.full((*SIZE, 3), GRAYS[3], np.uint8))
    assert os.listdir(tmp_path) == []


def test_every_third_frame(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.avi")
    with VideoReader(path, stride=3) as video:
        assert (video.announced, video.rate) == (4, pytest.approx(25 / 3))
        found = {number: int(round(frame.mean() / 20)) - 1 for number, frame in video}
    assert found == {0: 0, 1: 3, 2: 6, 3: 9} and video.shortfall() == ""

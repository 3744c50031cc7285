"""``predict_sources`` with a detector that finds one box per image: which files it writes."""

import json
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from mindyolo_ext.data.image_file import read_image, write_image
from mindyolo_ext.engine.predict import Detections, PredictOptions, predict_sources
from mindyolo_ext.engine.predict_files import as_folder
from mindyolo_ext.engine.tracking import TRACKERS, Tracker, new_tracker
from mindyolo_ext.errors import (
    DataError,
    DeviceError,
    MissingPackageError,
    UsageError,
    WriteError,
)

HEIGHT, WIDTH = 48, 64


class OneBox:
    """Find the upper left quarter of every image."""

    def routing(self) -> str:
        return ""

    def predict(self, image: Path | np.ndarray) -> Detections:
        picture = image if isinstance(image, np.ndarray) else read_image(image)
        height, width = picture.shape[:2]
        box = np.array([[0, 0, width / 2, height / 2]], np.float32)
        return Detections(picture, box, np.array([0.9], np.float32), np.array([0]), ["cat"])


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def draw(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, np.full((HEIGHT, WIDTH, 3), 90, np.uint8))


def make_video(path: Path, code: str, frames: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 25.0, (WIDTH, HEIGHT))
    for _ in range(frames):
        writer.write(np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    writer.release()


def written(folder: Path) -> dict[str, list]:
    return json.loads((folder / "predictions.json").read_text(encoding="utf-8"))


def test_bad_pictures_are_left_out_and_everything_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    draw(source / "a.jpg", source / "z.png", source / "sub" / "b.jpg")
    (source / "empty.png").touch()
    (source / "link.png").symlink_to("nowhere")
    os.mkfifo(source / "pipe.png")
    (source / "video.mp4").write_bytes(b"no video")
    (source / "k.heic").touch()
    rows = predict_sources(OneBox(), source, out)
    assert list(rows) == ["a.jpg", "z.png"]
    assert written(out) == rows
    assert sorted(os.listdir(out)) == ["a.jpg", "predictions.json", "z.png"]
    for name in ("empty.png", "link.png", "pipe.png", "video.mp4"):
        assert f"{source / name}: " in caplog.text
    assert "ignored: 1 file of other suffixes (1 with .heic): k.heic; 1 sub" in caplog.text
    assert "2 files, 2 rows, 4 left out" in caplog.text


@pytest.mark.parametrize("error", [ValueError, MemoryError, cv2.error, OSError, UsageError])
def test_whatever_one_picture_raises_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    draw(*(tmp_path / "in" / f"{name}.png" for name in "abc"))

    class Refusing(OneBox):
        def predict(self, image: Path | np.ndarray) -> Detections:
            if Path(image).name == "b.png":
                raise error("this one")
            return super().predict(image)

    rows = predict_sources(Refusing(), tmp_path / "in", tmp_path / "out")
    assert list(rows) == ["a.png", "c.png"]
    assert f"left out: {tmp_path / 'in' / 'b.png'}: this one" in caplog.text


def test_box_that_is_not_finite_does_not_spoil_the_rest(tmp_path: Path) -> None:
    draw(tmp_path / "in" / "a.png", tmp_path / "in" / "b.png")

    class Overflowing(OneBox):
        def predict(self, image: Path | np.ndarray) -> Detections:
            found = super().predict(image)
            if Path(image).name == "a.png":
                found.scores[0] = np.nan
            return found

    assert list(predict_sources(Overflowing(), tmp_path / "in", tmp_path / "out")) == ["b.png"]
    assert list(written(tmp_path / "out")) == ["b.png"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, DeviceError])
def test_what_was_found_before_an_interruption_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    draw(*(tmp_path / "in" / f"{name}.png" for name in "abc"))

    class Stopping(OneBox):
        def predict(self, image: Path | np.ndarray) -> Detections:
            if Path(image).name == "b.png":
                raise error
            return super().predict(image)

    with pytest.raises(error):
        predict_sources(Stopping(), tmp_path / "in", tmp_path / "out")
    assert list(written(tmp_path / "out")) == ["a.png"]
    assert "stopped after 1 of 3 files" in caplog.text


def test_nothing_readable_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match="none of 1 files could be read; the first: .*a.png: "):
        predict_sources(OneBox(), tmp_path / "a.png", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_boxes_stay_when_the_copy_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    draw(tmp_path / "in" / "a.png")
    make_video(tmp_path / "in" / "b.avi", "MJPG", 3)

    def refuse(path: Path, _: np.ndarray) -> None:
        raise WriteError(f"{path}: cannot be written (No space left on device)")

    monkeypatch.setattr("mindyolo_ext.engine.detections.write_image", refuse)
    monkeypatch.setattr("mindyolo_ext.engine.video_copy._count_frames", lambda _: 0)
    rows = predict_sources(OneBox(), tmp_path / "in", tmp_path / "out")
    assert {name: len(value) for name, value in rows.items()} == {"a.png": 1, "b.avi": 3}
    assert os.listdir(tmp_path / "out") == ["predictions.json"]
    assert caplog.text.count("boxes kept, but not written: ") == 2
    assert "0 left out, 2 files not written" in caplog.text


def test_source_that_means_nothing_does_not_end_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "notes.md").touch()
    rows = predict_sources(OneBox(), sorted(tmp_path.iterdir()), tmp_path / "out")
    assert list(rows) == ["a.png"]
    assert f"left out: {tmp_path / 'notes.md'}: wanted an image" in caplog.text
    assert "1 file, 1 row, 1 left out" in caplog.text


def test_second_run_takes_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(Path("x/a.png"), Path("y/a.png"))
    for source in "xy":
        predict_sources(OneBox(), source)
    assert (
        "runs/predict exists and is not changed; these results go to runs/predict2" in caplog.text
    )
    for source in "xy":
        predict_sources(OneBox(), source, "mine")
    folders = ("runs/predict", "runs/predict2", "mine", "mine2")
    assert all(sorted(os.listdir(f)) == ["a.png", "predictions.json"] for f in folders)


def test_pictures_of_one_name(tmp_path: Path) -> None:
    draw(*(tmp_path / "in" / place / "a.png" for place in (".", "p", "q/r")))
    rows = predict_sources(OneBox(), tmp_path / "in" / "**" / "*.png", tmp_path / "out")
    assert list(rows) == list(written(tmp_path / "out")) == ["a.png", "p/a.png", "q/r/a.png"]
    assert all((tmp_path / "out" / name).is_file() for name in rows)


def test_videos_of_one_stem(tmp_path: Path) -> None:
    make_video(tmp_path / "in" / "clip.avi", "MJPG", 2)
    make_video(tmp_path / "in" / "clip.mp4", "mp4v", 3)
    rows = predict_sources(OneBox(), tmp_path / "in", tmp_path / "out")
    assert {name: len(frames) for name, frames in rows.items()} == {"clip.avi": 2, "clip.mp4": 3}
    for name, frames in (("clip.avi.mp4", 2), ("clip.mp4", 3)):
        copy = cv2.VideoCapture(str(tmp_path / "out" / name))
        assert copy.get(cv2.CAP_PROP_FRAME_COUNT) == frames


def test_unreadable_frame_is_null_and_the_copy_keeps_its_length(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.avi"
    make_video(path, "MJPG", 5)
    content = bytearray(path.read_bytes())
    begin = content.index(b"00dc", content.index(b"00dc", content.index(b"movi")) + 1) + 8
    end = content.index(b"00dc", begin)
    content[begin:end] = bytes(end - begin)
    path.write_bytes(content)
    rows = predict_sources(OneBox(), path, tmp_path / "out")
    assert [frame is None for frame in rows["a.avi"]] == [False, True, False, False, False]
    assert "a.avi: 4 of 5 announced frames could be read" in caplog.text
    copy = cv2.VideoCapture(str(tmp_path / "out" / "a.mp4"))
    assert copy.get(cv2.CAP_PROP_FRAME_COUNT) == 5


def test_name_that_is_no_utf8_and_one_with_control_characters(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw = b"\xd5\xd5.png"
    draw(tmp_path / "in" / os.fsdecode(raw), tmp_path / "in" / "a\nb\x1b[31m.png")
    (tmp_path / "in" / "c\nd.png").touch()
    predict_sources(OneBox(), tmp_path / "in", tmp_path / "out")
    assert {os.fsencode(name) for name in written(tmp_path / "out")} == {raw, b"a\nb\x1b[31m.png"}
    assert raw in os.listdir(os.fsencode(tmp_path / "out"))
    assert r"c\nd.png: wanted a readable image" in caplog.text


def test_batches_and_what_one_broken_image_does_to_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw(*(tmp_path / "in" / f"{name}.png" for name in "abcd"))
    (tmp_path / "in" / "bb.png").write_bytes(b"no image")
    make_video(tmp_path / "in" / "c.avi", "MJPG", 2)
    sizes = []

    class Batched(OneBox):
        def predict(self, image: Any) -> Any:
            if isinstance(image, list):
                sizes.append(len(image))
                return [super(Batched, self).predict(one) for one in image]
            return super().predict(image)

    rows = predict_sources(Batched(), tmp_path / "in", tmp_path / "out", PredictOptions(batch=3))
    assert list(rows) == ["a.png", "b.png", "c.avi", "c.png", "d.png"]
    assert sizes == [2, 2, 2]  # of the video, too
    assert f"left out: {tmp_path / 'in' / 'bb.png'}: wanted a readable image" in caplog.text


def test_batch_that_fails_is_tried_one_by_one(tmp_path: Path) -> None:
    draw(*(tmp_path / "in" / f"{name}.png" for name in "ab"))

    class NoLists(OneBox):
        def predict(self, image: Any) -> Any:
            if isinstance(image, list):
                raise MemoryError
            return super().predict(image)

    options = PredictOptions(batch=2)
    rows = predict_sources(NoLists(), tmp_path / "in", tmp_path / "out", options)
    assert list(rows) == ["a.png", "b.png"]


def test_labels_crops_and_coco(tmp_path: Path) -> None:
    draw(tmp_path / "in" / "p" / "a.png", tmp_path / "in" / "a.png")
    make_video(tmp_path / "in" / "v.avi", "MJPG", 2)
    wanted = PredictOptions(
        save_images=False, save_txt=True, save_crop=True, save_json=True, recursive=True
    )
    out = tmp_path / "out"
    predict_sources(OneBox(), tmp_path / "in", out, wanted)
    made = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    stems = ("a", "p/a", "v.mp4/0", "v.mp4/1")
    crops = [f"crops/cat/{stem}_0.jpg" for stem in stems]
    labels = [f"labels/{stem}.txt" for stem in stems]
    assert made == sorted([*crops, *labels, "coco.json", "predictions.json"])
    line = "0 0.25 0.25 0.5 0.5 0.9\n"
    assert (out / "labels" / "p" / "a.txt").read_text() == line
    assert read_image(out / crops[0]).shape == (HEIGHT // 2, WIDTH // 2, 3)
    truth = COCO(str(out / "coco.json"))
    assert [image["file_name"] for image in truth.dataset["images"]] == ["a.png", "p/a.png"]
    assert truth.getAnnIds(imgIds=[2]) == [2] and truth.cats[0]["name"] == "cat"
    assert truth.anns[2]["bbox"] == [0, 0, WIDTH / 2, HEIGHT / 2]


def test_every_third_frame(tmp_path: Path) -> None:
    make_video(tmp_path / "a.avi", "MJPG", 8)
    rows = predict_sources(
        OneBox(), tmp_path / "a.avi", tmp_path / "out", PredictOptions(vid_stride=3)
    )
    assert len(rows["a.avi"]) == 3
    copy = cv2.VideoCapture(str(tmp_path / "out" / "a.mp4"))
    assert copy.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert copy.get(cv2.CAP_PROP_FPS) == pytest.approx(25 / 3, abs=0.01)


def test_options_that_make_no_sense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ({"vid_stride": 0}, {"batch": 0}):
        with pytest.raises(UsageError, match=f"--{next(iter(wrong))}: wanted at least 1, got 0"):
            PredictOptions(**wrong)
    draw(tmp_path / "a.png")
    with pytest.raises(UsageError, match="--track: follows objects through videos and streams"):
        predict_sources(OneBox(), tmp_path / "a.png", None, PredictOptions(track="bytetrack"))
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DeviceError, match="--show: no display here"):
        predict_sources(OneBox(), tmp_path / "a.png", tmp_path / "out", PredictOptions(show=True))
    assert not (tmp_path / "out").exists()


def test_tracker_that_is_not_installed_or_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackers", ModuleType("trackers"))
    for missing in ("supervision", "trackers"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, missing, None)
            with pytest.raises(MissingPackageError, match="pip install --no-deps trackers"):
                new_tracker("bytetrack", 25.0, 0.3)
    with pytest.raises(UsageError, match="wanted one of bytetrack, ocsort, sort, got 'best'"):
        new_tracker("best", 25.0, 0.3)


@pytest.mark.parametrize("name", TRACKERS)
def test_an_object_keeps_its_number(name: str) -> None:
    pytest.importorskip("trackers")
    follow = new_tracker(name, 25.0, 0.3)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    known = []
    for step in range(6):
        boxes = np.array([[30, 30, 44, 44], [step, 2, 12 + step, 14]], np.float32)
        dog = 0.2 if step == 4 and name == "bytetrack" else 0.5  # is hard to see for a moment
        found = Detections(
            image, boxes, np.array([0.9, dog], np.float32), np.array([1, 0]), ["dog", "cat"]
        )
        known.append(follow(found))
    assert len(known[0]) == 0
    for frame, step in zip(known[3:], range(3, 6)):
        assert frame.names == ["cat", "dog"] and frame.boxes[1, 0] == step
        assert frame.track_ids.tolist() == known[3].track_ids.tolist()
        assert [row["track"] for row in frame.to_list()] == frame.track_ids.tolist()


@pytest.mark.parametrize(("name", "asked"), [("bytetrack", pytest.approx(0.2)), ("sort", None)])
def test_only_videos_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, asked: float | None
) -> None:
    draw(tmp_path / "in" / "a.png")
    make_video(tmp_path / "in" / "b.avi", "MJPG", 3)
    thresholds = []

    class Asked(OneBox):
        def predict(self, image: Any, *, conf_thres: float | None = None) -> Detections:
            thresholds.append(conf_thres)
            return super().predict(image)

    def numbering(*given: object) -> Tracker:
        assert given == (name, 25.0, 0.6)
        return lambda found: replace(found, track_ids=np.array([7]))

    monkeypatch.setattr("mindyolo_ext.engine.predict_job.new_tracker", numbering)
    options = PredictOptions(track=name, track_conf=0.6)
    rows = predict_sources(Asked(), tmp_path / "in", tmp_path / "out", options)
    assert "track" not in rows["a.png"][0]
    assert [frame[0]["track"] for frame in rows["b.avi"]] == [7, 7, 7]
    assert thresholds == [None, asked, asked, asked]


def test_window_shows_what_was_found_and_q_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    draw(*(tmp_path / "in" / f"{name}.png" for name in "ab"))
    make_video(tmp_path / "in" / "c.avi", "MJPG", 3)
    keys, calls = iter([ord("x"), -1, -1, -1]), []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", lambda *_: None)
    monkeypatch.setattr(cv2, "setWindowTitle", lambda _, title: calls.append(title))
    monkeypatch.setattr(cv2, "imshow", lambda _, image: calls.append(image.shape))
    monkeypatch.setattr(cv2, "waitKey", lambda time: [calls.append(time), next(keys, ord("q"))][1])
    monkeypatch.setattr(cv2, "destroyWindow", lambda _: calls.append("closed"))
    with pytest.raises(KeyboardInterrupt):
        options = PredictOptions(show=True)
        predict_sources(OneBox(), tmp_path / "in", tmp_path / "out", options)
    shape = (HEIGHT, WIDTH, 3)
    images, frames = (["a.png", shape, 0, "b.png", shape, 0], ["c.avi", shape, 1] * 3)
    assert calls == [*images, *frames, "closed"]
    assert list(written(tmp_path / "out")) == ["a.png", "b.png", "c.avi"]
    assert len(written(tmp_path / "out")["c.avi"]) == 2  # q came with the third frame
    assert "c.avi: stopped after 2 frames" in caplog.text


def test_opencv_without_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise cv2.error("not implemented")

    draw(tmp_path / "a.png")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", refuse)
    with pytest.raises(DeviceError, match="pip install opencv-python"):
        predict_sources(OneBox(), tmp_path / "a.png", tmp_path / "out", PredictOptions(show=True))


def test_files_of_one_stem_do_not_share_labels(tmp_path: Path) -> None:
    draw(*(tmp_path / "in" / name for name in ("a.png", "a.jpg", "a.jpg.png", "b.png")))
    options = PredictOptions(save_images=False, save_txt=True, save_crop=True)
    predict_sources(OneBox(), tmp_path / "in", tmp_path / "out", options)
    names = {path.name for path in (tmp_path / "out" / "labels").iterdir()}
    assert names == {"a.png.txt", "a.jpg.txt", "a.jpg.png.txt", "b.txt"}
    assert len(list((tmp_path / "out" / "crops" / "cat").iterdir())) == 4


def test_labels_of_others_are_never_overwritten(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("truth")
    options = PredictOptions(save_txt=True)
    predict_sources(OneBox(), tmp_path / "images", tmp_path, options)
    assert (tmp_path / "labels" / "a.txt").read_text() == "truth"
    assert (tmp_path.with_name(f"{tmp_path.name}2") / "labels" / "a.txt").is_file()


def test_disk_that_takes_no_labels_does_not_end_a_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_video(tmp_path / "a.avi", "MJPG", 30)

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise WriteError(f"{path}: cannot be written (No space left on device)")

    monkeypatch.setattr("mindyolo_ext.engine.predict_files.atomic.write_bytes", refuse)
    monkeypatch.setattr("mindyolo_ext.engine.predict_files.atomic.write_json", lambda *_, **__: 0)
    options = PredictOptions(save_txt=True)
    rows = predict_sources(OneBox(), tmp_path / "a.avi", tmp_path / "out", options)
    assert len(rows["a.avi"]) == 30
    assert caplog.text.count("boxes kept, but not written: ") == 20
    assert "30 files not written" in caplog.text


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("cat", "cat"),
        ("../x", "_x"),
        ("a/b:c", "a_b_c"),
        ("..", "class"),
        ("猫", "猫"),
        (" ", "class"),
    ],
)
def test_folder_of_a_class(name: str, folder: str) -> None:
    assert as_folder(name) == folder

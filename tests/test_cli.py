"""The console command from end to end: help, errors, and every verb on a small drawn data set."""

import json
import logging
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import label_sets
import numpy as np
import pytest
import yaml
from helpers import DEFAULT_GOLDEN, Command, original_name
from launching import BIN, ROOT, environment
from seeded import seeded_tensor

from mindyolo_ext.backend import BACKEND
from mindyolo_ext.backend.parameters import parameter_values
from mindyolo_ext.checkpoint.store import CheckpointMetadata, save_checkpoint
from mindyolo_ext.cli import main
from mindyolo_ext.config import Config, load_config
from mindyolo_ext.data.image_file import read_image, write_image
from mindyolo_ext.data.shapes import SHAPE_NAMES, make_shapes_dataset
from mindyolo_ext.engine.darknet import recipe_overrides
from mindyolo_ext.engine.predict import Detector, find_sources, predict_sources
from mindyolo_ext.errors import UsageError
from mindyolo_ext.evaluation.confusion import has_supervision
from mindyolo_ext.evaluation.nms import NMSOptions
from mindyolo_ext.models.registry import create_model, families

VERBS = (
    "train",
    "test",
    "compare",
    "predict",
    "serve",
    "convert",
    "verify",
    "reproduce",
    "export",
    "benchmark",
    "anchors",
    "thresholds",
    "check-data",
    "split",
    "assign",
    "models",
    "recipes",
    "new",
    "migrate",
    "recipe",
    "info",
    "doctor",
    "demo",
)
OFFICIAL = DEFAULT_GOLDEN / "yolo_fastestv2" / "official_format_yolo_fastestv2.pth"
SIZE = (64, 96)  # network input, height and width
PHOTO = (96, 128)
CONFIDENCE = 0.05  # the seeded weights find a few dozen boxes above it
pytestmark = pytest.mark.usefixtures("quiet_logging")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def shapes(folder: Path) -> Path:
    """Drawn images: 6 for training, 4 for evaluation."""
    return make_shapes_dataset(
        folder / "shapes", train_images=6, val_images=4, size=PHOTO, progress=False
    )


@pytest.fixture(scope="module")
def recipe(folder: Path, shapes: Path) -> Path:
    train, val = (
        {"format": "coco", "images": f"images/{split}", "annotations": f"annotations/{split}.json"}
        for split in ("train", "val")
    )
    values = {
        "model": {"name": "yolo_fastestv2"},
        "input": {"size": list(SIZE)},
        "data": {
            "root": str(shapes),
            "train": train,
            "val": val,
            "augment": ["resize"],
            "workers": 0,
        },
        "train": {"epochs": 2, "per_batch_size": 2},
        "eval": {"conf_thres": CONFIDENCE, "iou_thres": 0.4, "metrics": ["darknet"]},
    }
    path = folder / "shapes.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def save_seeded(path: Path, num_classes: int, class_names: list[str]) -> Path:
    """A checkpoint of ours with seeded weights."""
    model = create_model("yolo_fastestv2", num_classes=num_classes)
    values = {
        name: seeded_tensor(original_name(name), array.shape, 0, 1.2)
        for name, array in parameter_values(model).items()
    }
    save_checkpoint(
        path,
        values,
        CheckpointMetadata(
            "yolo_fastestv2",
            num_classes,
            class_names,
            replace(model.input_spec, size=SIZE),
            dict(model.architecture),
        ),
    )
    return path


@pytest.fixture(scope="module")
def weight(folder: Path) -> Path:
    return save_seeded(folder / "seeded.ckpt", len(SHAPE_NAMES), list(SHAPE_NAMES))


@pytest.fixture(scope="module")
def detector(weight: Path) -> Detector:
    """Compiled once for the module."""
    found = Detector(weight, conf_thres=CONFIDENCE)
    found.predict(np.zeros((*PHOTO, 3), np.uint8))
    return found


def pictures(shapes: Path) -> list[Path]:
    return sorted((shapes / "images" / "val").glob("*.jpg"))


def one_line_error(status: int, output: str) -> str:
    """The message of an explained error: exit status 1, and its only ``error:`` line comes last."""
    assert status == 1, output
    assert "Traceback" not in output
    lines = [line for line in output.strip().splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, output
    assert output.strip().endswith(lines[0]), output
    return lines[0]


# ---- help ----------------------------------------------------------------------------------------


def test_help_of_every_verb_starts_no_framework():
    code = (
        "import sys\nfrom mindyolo_ext.cli import main\n"
        f"for verb in {VERBS!r}:\n    try:\n        main([verb, '--help'])\n"
        "    except SystemExit as leaving:\n        assert leaving.code == 0, verb\n"
        "assert not {'mindspore', 'mindyolo_ext.backend', 'cv2'} & set(sys.modules), 'a framework "
        "was imported'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: mindyolo-ext ") == len(VERBS)


def test_help_lists_the_verbs_and_the_console_script_is_installed():
    done = subprocess.run(
        [BIN / "mindyolo-ext", "--help"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert tuple(re.findall(r"^    ([a-z-]+)(?: |$)", done.stdout, re.MULTILINE)) == VERBS


@pytest.mark.parametrize("script", ["train.py", "test.py"])
def test_scripts_are_the_verbs(script: str):
    done = subprocess.run(
        [sys.executable, ROOT / script, "--config", "nowhere.yaml", "--weight", "w.ckpt"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (
        1,
        "error: config nowhere.yaml: no such file; `mindyolo-ext recipes` lists the shipped ones\n",
    )


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([], "the following arguments are required: VERB"),
        (["tarin"], "unknown verb tarin, did you mean train?"),
        (["xyz"], "unknown verb xyz; verbs are train, test, compare, predict, serve"),
        (["train", "x.yaml"], "unexpected x.yaml"),
        (
            ["train", "--config", "x.yaml", "--device_target", "TPU"],
            "invalid choice: 'TPU' (choose from",
        ),
        (
            ["train", "--config", "x.yaml", "--is_parallel", "maybe"],
            "wanted True or False, got 'maybe'",
        ),
        (
            ["train", "--config", "x.yaml", "--epochs", "many"],
            "--epochs: invalid int value: 'many'",
        ),
        (
            ["train", "--config", "x.yaml", "--epoch", "3"],
            "unknown option --epoch, did you mean --epochs?",
        ),
        (["train", "--batch_size", "3"], "--batch_size, did you mean --per_batch_size?"),
        (["train", "--per-batch-size=3"], "--per-batch-size, did you mean --per_batch_size?"),
        (["train", "--weights", "w"], "--weights, did you mean --weight?"),
        (["train", "--lr=1"], "--lr, did you mean --set train.optimizer.lr=1?"),
        (["train", "--cache", "1"], "--cache, did you mean --set data.cache=VALUE?"),
        (["train", "--project", "p"], "--project, did you mean --save_dir?"),
        (["train", "--xyzzy"], "unknown option --xyzzy (`mindyolo-ext train --help`)"),
        (["predict", "--imgsz", "640"], "--imgsz, did you mean --img_size?"),
        (["doctor", "--device", "CPU"], "--device, did you mean --device_target?"),
        (["predict", "x.jpg"], "the following arguments are required: --weight"),
        (["export", "--weight", "x.ckpt", "--format", "tflite"], "invalid choice: 'tflite'"),
    ],
)
def test_wrong_arguments_end_with_status_2(command: Command, arguments: list[str], wanted: str):
    status, output = command(*arguments)
    assert status == 2
    assert wanted in output.splitlines()[-1]


def test_missing_config(command: Command):
    assert "config nowhere.yaml: no such file" in one_line_error(
        *command("train", "--config", "nowhere.yaml")
    )


def test_unknown_key_says_what_was_meant(command: Command, recipe: Path):
    message = one_line_error(*command("train", "--config", recipe, "--set", "train.epoch=3"))
    assert "unknown key train.epoch, did you mean train.epochs?" in message
    message = one_line_error(*command("train", "--config", recipe, "--set", "train.epochs"))
    assert "wanted section.key=value" in message


def test_misspelt_builder_keyword_is_explained(command: Command, recipe: Path, tmp_path: Path):
    message = one_line_error(
        *command(
            "train",
            "--config",
            recipe,
            "--save_dir",
            tmp_path / "run",
            "--set",
            "model.keywords={ancors: []}",
        )
    )
    assert "ancors" in message


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ("model.name=yolo_fastestv3", "unknown model 'yolo_fastestv3', did you mean"),
        ("train.loss.name=yolox_los", "unknown loss 'yolox_los', did you mean yolox_loss?"),
        ("train.loss.box_weigth=1", "unknown keyword 'box_weigth', did you mean box_weight?"),
        ("data.augment=[resiz]", "unknown name 'resiz', did you mean resize?"),
        ("data.augment=[{name: hsv, hu: 1}]", "(hsv): unknown keyword hu, did you mean hue?"),
        (
            "train.stages=[{from_epoch: 1, augment: [{name: hsv, hu: 1}]}]",
            "(hsv): unknown keyword hu, did you mean hue?",
        ),
    ],
)
def test_wrong_names_are_told_before_data_is_read(
    command: Command, recipe: Path, tmp_path: Path, changes: str, wanted: str
):
    for verb in ("train", "test", "assign"):
        arguments = ["--config", recipe, "--save_dir", tmp_path / "run", "--set", changes]
        arguments += ["--weight", "none.ckpt"] if verb == "test" else []
        message = one_line_error(*command(verb, *arguments, "--data_root", tmp_path / "nowhere"))
        assert wanted in message


@pytest.mark.parametrize("error", [ValueError, TypeError, RuntimeError, KeyError, AssertionError])
def test_a_fault_of_the_program_keeps_its_traceback(
    command: Command, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
):
    def broken(_: Path) -> None:
        raise error("unexpected keyword argument")

    monkeypatch.setattr("mindyolo_ext.checkpoint.inspect.describe", broken)
    status, output = command("info", "x.ckpt")
    assert status == 70
    assert "Traceback (most recent call last)" in output and "in broken" in output
    last = output.strip().splitlines()[-1]
    assert last.startswith(f"error: this is a bug in mindyolo_ext ({error.__name__})")
    assert "please report it" in last
    with pytest.raises(error):
        main(["info", "x.ckpt", "--debug"])


def test_a_package_that_is_missing_is_named(command: Command, monkeypatch: pytest.MonkeyPatch):
    def broken(_: Path) -> None:
        raise ModuleNotFoundError("No module named 'cv2'", name="cv2")

    monkeypatch.setattr("mindyolo_ext.checkpoint.inspect.describe", broken)
    message = one_line_error(*command("info", "x.ckpt"))
    assert f"the package cv2 is not installed for {sys.executable}" in message
    assert "pip install -e ." in message


def test_what_is_logged_cannot_steer_a_terminal(command: Command, monkeypatch: pytest.MonkeyPatch):
    def logs(_: Path) -> None:
        logging.getLogger("mindyolo_ext").info("a\x1b[31mred\u202e\tb\nc")
        raise UsageError("end")

    monkeypatch.setattr("mindyolo_ext.checkpoint.inspect.describe", logs)
    _, output = command("info", "x.ckpt")
    assert output.splitlines()[:2] == ["a\\x1b[31mred\\u202e\tb", "c"]


def test_debug_shows_the_traceback(recipe: Path):
    with pytest.raises(ValueError, match="did you mean train.epochs"):
        main(["train", "--config", str(recipe), "--debug", "--set", "train.epoch=3"])


def test_parallel_without_a_launcher(command: Command, recipe: Path):
    message = one_line_error(*command("train", "--config", recipe, "--is_parallel", "True"))
    assert "mpirun -n N" in message
    assert {"mindspore": "msrun", "torch": "torchrun"}[BACKEND] in message


def test_wrong_data_root(command: Command, recipe: Path, tmp_path: Path):
    message = one_line_error(
        *command(
            "train",
            "--config",
            recipe,
            "--data_root",
            tmp_path / "nowhere",
            "--save_dir",
            tmp_path / "run",
        )
    )
    assert str(tmp_path / "nowhere" / "images" / "train") in message
    assert not (tmp_path / "run").exists()


def test_train_refuses_a_folder_with_a_run_and_resume_without_one(
    command: Command, recipe: Path, tmp_path: Path
):
    assert "nothing to continue from" in one_line_error(
        *command("train", "--config", recipe, "--save_dir", tmp_path, "--resume")
    )
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "last.ckpt").touch()
    assert "--resume" in one_line_error(
        *command("train", "--config", recipe, "--save_dir", tmp_path)
    )


def test_missing_weight(command: Command, recipe: Path, shapes: Path):
    for arguments in (
        ("test", "--config", recipe),
        ("predict", shapes / "images" / "val"),
        ("export",),
    ):
        message = one_line_error(*command(*arguments, "--weight", "nowhere.ckpt"))
        assert "nowhere.ckpt: no such file" in message


def test_weight_that_is_a_web_page(command: Command, recipe: Path, shapes: Path, tmp_path: Path):
    page = tmp_path / "page.ckpt"
    page.write_text("<!DOCTYPE html><html><body>404</body></html>", encoding="utf-8")
    for arguments in (
        ("test", "--config", recipe, "--weight", page),
        ("predict", shapes / "val.txt", "--weight", page),
        ("predict", shapes / "images" / "val", "--weight", page),
        ("export", "--weight", page),
        ("info", page),
        ("convert", page, tmp_path / "x.ckpt"),
    ):
        message = one_line_error(*command(*arguments))
        assert "page.ckpt" in message or "val.txt: wanted an image" in message
    assert "web page" in message
    assert not (tmp_path / "x.ckpt").exists()


def test_class_counts_of_weight_and_data_must_agree(
    command: Command, recipe: Path, folder: Path, tmp_path: Path
):
    other = save_seeded(folder / "five.ckpt", 5, [])
    message = one_line_error(
        *command("test", "--config", recipe, "--weight", other, "--save_dir", tmp_path)
    )
    assert "has 5 classes, but data.val has 3 (circle, square, triangle)" in message


def test_model_of_weight_and_recipe_must_agree(command: Command, recipe: Path, weight: Path):
    message = one_line_error(
        *command("test", "--config", recipe, "--weight", weight, "--set", "model.name=yolox_s")
    )
    assert "holds yolo_fastestv2, but the recipe names yolox_s" in message


def test_odd_input_sizes(command: Command, weight: Path):
    assert "multiples of 32" in one_line_error(
        *command("export", "--weight", weight, "--img_size", 100)
    )
    assert "--img_size: wanted a side or height and width" in one_line_error(
        *command("export", "--weight", weight, "--img_size", 64, 64, 64)
    )


def test_missing_pictures(command: Command, weight: Path, tmp_path: Path):
    for source in (tmp_path, tmp_path / "none.jpg", tmp_path / "*.jpg"):
        assert "no image or video there" in one_line_error(
            *command("predict", source, "--weight", weight)
        )


def test_folder_that_cannot_be_made(command: Command, weight: Path, shapes: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    one_line_error(
        *command(
            "predict",
            pictures(shapes)[0],
            "--weight",
            weight,
            "--save_dir",
            tmp_path / "file" / "x",
        )
    )


# ---- predict -------------------------------------------------------------------------------------


def test_predict_annotates_pictures_and_writes_their_boxes(
    command: Command, shapes: Path, weight: Path, detector: Detector, tmp_path: Path
):
    status, output = command(
        "predict",
        shapes / "images" / "val",
        "--weight",
        weight,
        "--conf_thres",
        CONFIDENCE,
        "--save_dir",
        tmp_path,
    )
    assert status == 0, output
    rows = json.loads((tmp_path / "predictions.json").read_text(encoding="utf-8"))
    assert list(rows) == [path.name for path in pictures(shapes)]
    for path in pictures(shapes):
        assert rows[path.name] == detector.predict(path).to_list()
        assert len(rows[path.name]) > 3
        assert read_image(tmp_path / path.name).shape == (*PHOTO, 3)
        # an annotated image
        assert np.abs(read_image(tmp_path / path.name).astype(int) - read_image(path)).max() > 60
    assert "0 left out" in output


def test_class_agnostic_predictions_do_not_overlap(
    command: Command, shapes: Path, weight: Path, detector: Detector, tmp_path: Path
):
    photo = pictures(shapes)[0]
    status, output = command(
        "predict",
        photo,
        "--weight",
        weight,
        "--conf_thres",
        CONFIDENCE,
        "--iou_thres",
        "0.2",
        "--class_agnostic",
        "--save_dir",
        tmp_path,
    )
    assert status == 0, output
    found = json.loads((tmp_path / "predictions.json").read_text(encoding="utf-8"))[photo.name]
    boxes, _ = (
        t[0] for t in detector._predictor(detector.input_spec.prepare(read_image(photo))[0][None])
    )
    assert 0 < len(found) < len(detector.predict(photo).to_list()) <= len(boxes)


def test_threads_share_two_detectors(detector: Detector, weight: Path, shapes: Path):
    wanted = {path: detector.predict(path).to_list() for path in pictures(shapes)}
    found: list[bool] = []
    fresh = Detector(weight, conf_thres=CONFIDENCE)  # its first calls come together

    def work() -> None:
        for path, rows in wanted.items():
            for one in (fresh, detector):
                found.append(one.predict(path).to_list() == rows)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * (3 * 2 * len(wanted))


def test_broken_picture_is_left_out_and_the_others_go_on(
    detector: Detector, shapes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    source = tmp_path / "in"
    source.mkdir()
    good = pictures(shapes)[0].read_bytes()
    (source / "a.jpg").write_bytes(good[:40])
    (source / "b.jpg").write_bytes(good)
    (source / "notes.txt").write_text("no picture", encoding="utf-8")
    rows = predict_sources(detector, source, tmp_path / "out")
    assert list(rows) == ["b.jpg"]
    assert f"left out: {source / 'a.jpg'}" in caplog.text
    (source / "b.jpg").unlink()
    with pytest.raises(ValueError, match="none of 1 files could be read"):
        predict_sources(detector, source, tmp_path / "out")


def test_predict_never_overwrites_its_sources(detector: Detector, tmp_path: Path, shapes: Path):
    picture = tmp_path / "a.jpg"
    picture.write_bytes(pictures(shapes)[0].read_bytes())
    with pytest.raises(ValueError, match="choose another --save_dir"):
        predict_sources(detector, tmp_path / "*.jpg", tmp_path)
    assert picture.read_bytes() == pictures(shapes)[0].read_bytes()
    assert find_sources(tmp_path / "a*") == [picture]


def test_video(detector: Detector, shapes: Path, tmp_path: Path):
    clip = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"mp4v"), 12.0, PHOTO[::-1])
    assert writer.isOpened()
    for path in pictures(shapes)[:3]:
        writer.write(read_image(path))
    writer.release()
    rows = predict_sources(detector, clip, tmp_path / "out")
    assert [len(frame) > 0 for frame in rows["clip.mp4"]] == [True] * 3
    assert rows["clip.mp4"] == [found.to_list() for found in detector.predict_video(clip)]
    copy = cv2.VideoCapture(str(tmp_path / "out" / "clip.mp4"))
    assert copy.get(cv2.CAP_PROP_FPS) == pytest.approx(12.0)
    frames = [copy.read() for _ in range(4)]
    assert [good for good, _ in frames] == [True, True, True, False]
    assert frames[0][1].shape == (*PHOTO, 3)


def test_file_that_is_no_video(
    detector: Detector, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "a.mp4").write_bytes(b"this is no video")
    with pytest.raises(ValueError, match="none of 1 files could be read"):
        predict_sources(detector, tmp_path / "a.mp4", tmp_path / "out")
    assert "a.mp4" in caplog.text


# ---- test ----------------------------------------------------------------------------------------


def test_test_evaluates_with_the_boxes_that_predict_finds(
    command: Command, recipe: Path, shapes: Path, weight: Path, detector: Detector, tmp_path: Path
):
    status, output = command("test", "--config", recipe, "--weight", weight, "--save_dir", tmp_path)
    assert status == 0, output
    assert {p.name for p in tmp_path.iterdir()} == {
        "detections.json",
        "metrics.txt",
        "pr_curves.png",
        "f1_curves.png",
        "precision_curves.png",
        "recall_curves.png",
        "errors.png",
    } | ({"confusion.png", "confusion.csv"} if has_supervision() else set())
    table = (tmp_path / "metrics.txt").read_text(encoding="utf-8")
    assert table.strip() in output
    for text in (*SHAPE_NAMES, "AP50", "The original's own metric", "network, ms/image"):
        assert text in table
    stored = json.loads((tmp_path / "detections.json").read_text(encoding="utf-8"))
    before, detector.options = detector.options, NMSOptions(conf_thres=CONFIDENCE, iou_thres=0.4)
    try:
        for number, path in enumerate(pictures(shapes), 1):
            found = detector.predict(path)
            own = sorted((r for r in stored if r["image_id"] == number), key=lambda r: -r["score"])
            assert len(own) == len(found) > 3
            boxes = np.array([r["bbox"] for r in own])
            boxes[:, 2:] += boxes[:, :2]
            np.testing.assert_allclose([r["score"] for r in own], found.scores, atol=1e-4)
            np.testing.assert_allclose(boxes, found.boxes, atol=0.02)
    finally:
        detector.options = before


def test_any_split_is_evaluated_and_labels_are_written(
    command: Command, recipe: Path, shapes: Path, weight: Path, tmp_path: Path
):
    arguments = ["test", "--config", recipe, "--weight", weight, "--save_dir", tmp_path]
    found = one_line_error(*command(*arguments, "--split", "test"))
    assert "data.test is empty" in found
    described = "{format: coco, images: images/train, annotations: annotations/train.json}"
    arguments += ["--split", "test", "--set", f"data.test={described}"]
    status, output = command(*arguments, "--save_txt", "True", "--save_json", "False")
    assert status == 0, output
    assert "6 images" in output and not (tmp_path / "detections.json").exists()
    labels = sorted(path.stem for path in (tmp_path / "labels").iterdir())
    assert labels == sorted(path.stem for path in (shapes / "images" / "train").glob("*.jpg"))
    rows = np.loadtxt(tmp_path / "labels" / f"{labels[0]}.txt", ndmin=2)
    assert rows.shape[1] == 6 and len(rows) > 3 and rows[:, 1:].min() >= 0 <= rows[:, 1:].max() <= 1


def test_two_results_and_two_checkpoints_are_compared(
    command: Command, recipe: Path, weight: Path, tmp_path: Path
):
    status, output = command("test", "--config", recipe, "--weight", weight, "--save_dir", tmp_path)
    assert status == 0, output
    none = tmp_path / "none.json"
    none.write_text("[]", encoding="utf-8")
    arguments = ["--config", recipe, "--save_dir", tmp_path / "out"]
    status, output = command("compare", none, tmp_path, *arguments)
    assert status == 0, output
    table = (tmp_path / "out" / "compare.txt").read_text(encoding="utf-8")
    assert table.strip() in output and "B - A" in table
    assert all(name in table for name in SHAPE_NAMES)
    for path in (tmp_path / "out" / "pictures").iterdir():
        assert cv2.imread(str(path)).shape == (PHOTO[0] + 28, 3 * PHOTO[1], 3)
    status, output = command("compare", weight, tmp_path, *arguments, "--pictures", 0)
    assert status == 0, output
    changes = [line.split()[-1] for line in output.splitlines() if line.startswith("AP")]
    assert set(changes) <= {"+0.00", "-0.00", "-"} and len(changes) >= 6
    strange = tmp_path / "strange.json"
    entry = {"image_id": 77, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}
    strange.write_text(json.dumps([entry]), encoding="utf-8")
    found = one_line_error(*command("compare", none, strange, *arguments))
    assert "image 77 is not in" in found


# ---- export --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(weight: Path, folder: Path) -> Path:
    """ONNX and MindIR of the seeded weights; the stem of both files."""
    stem = folder / "exported" / "seeded"
    assert main(["export", "--weight", str(weight), "--output", str(stem)]) == 0
    return stem


def test_exported_files_carry_what_a_runner_needs(exported: Path, detector: Detector):
    import onnx

    from mindyolo_ext.checkpoint.inspect import describe

    onnx_file = onnx.load(str(exported.with_suffix(".onnx")))
    files = sorted(exported.parent.iterdir())
    kinds = {"mindspore": [".mindir", ".onnx"], "torch": [".onnx"]}[BACKEND]
    assert [(path.stem, path.suffix) for path in files] == [("seeded", kind) for kind in kinds]
    found = [{p.key: p.value for p in onnx_file.metadata_props}]
    found += [describe(path).metadata for path in files if path.suffix == ".mindir"]
    for metadata in found:
        assert metadata["model"] == "yolo_fastestv2"
        assert metadata["num_classes"] == "3"
        assert json.loads(metadata["class_names"]) == list(SHAPE_NAMES)
        assert metadata["outputs"] == "boxes,scores"
        assert type(detector.input_spec).from_json(metadata["input_spec"]) == detector.input_spec
        assert len(json.loads(metadata["architecture"])["anchors"]) == 6
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*onnx_file.graph.input, *onnx_file.graph.output)
    }
    rows = 3 * (4 * 6 + 2 * 3)
    assert shapes == {"images": [1, 3, *SIZE], "boxes": [1, rows, 4], "scores": [1, rows, 3]}


def test_onnx_runner_finds_the_boxes_of_the_detector(
    exported: Path, runner: ModuleType, detector: Detector, shapes: Path
):
    other = runner.OnnxDetector(exported.with_suffix(".onnx"), conf_thres=CONFIDENCE)
    for path in pictures(shapes):
        found, rows = detector.predict(path), other.predict(read_image(path))
        assert len(rows) == len(found) > 3
        np.testing.assert_allclose(rows[:, :4], found.boxes, atol=0.01)
        np.testing.assert_allclose(rows[:, 4], found.scores, atol=1e-4)
        assert rows[:, 5].tolist() == found.labels.tolist()
    assert list(other.class_names) == list(detector.class_names)


def test_both_predictors_name_classes_alike_without_names(
    exported: Path, runner: ModuleType, folder: Path
):
    import onnx

    weight = save_seeded(folder / "voc.ckpt", 20, [])
    model = onnx.load(str(exported.with_suffix(".onnx")))
    for entry in model.metadata_props:
        entry.value = {"class_names": "[]", "num_classes": "20"}.get(entry.key, entry.value)
    onnx.save(model, str(folder / "unnamed.onnx"))
    names = Detector(weight).class_names
    assert list(names) == list(runner.OnnxDetector(folder / "unnamed.onnx").class_names)
    assert names[:2] == ["aeroplane", "bicycle"]


def test_onnx_runner_as_a_program(exported: Path, shapes: Path, tmp_path: Path):
    program = [sys.executable, ROOT / "deploy" / "onnx_runtime.py"]
    picture = pictures(shapes)[0]
    done = subprocess.run(
        [*program, exported.with_suffix(".onnx"), picture, "--save_dir", tmp_path],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert re.match(rf"{re.escape(str(picture))}: \d+ boxes, [\d.]+ ms -> ", done.stdout)
    assert read_image(tmp_path / picture.name).shape == (*PHOTO, 3)
    (tmp_path / "no.onnx").write_bytes(b"no model")
    done = subprocess.run(
        [*program, tmp_path / "no.onnx", picture],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "no.onnx: ONNX Runtime cannot load it" in done.stderr
    assert "Traceback" not in done.stderr


def test_runner_leaves_out_bad_pictures_and_overwrites_none(
    runner: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
):
    for place in ("p", "q"):
        (tmp_path / place).mkdir()
        write_image(tmp_path / place / "a.png", np.zeros((*PHOTO, 3), np.uint8))
    (tmp_path / "q" / "b.png").touch()
    outputs, folder = runner.find_pictures([tmp_path / "p", tmp_path / "q"], tmp_path / "out")
    assert [output.target for output in outputs] == ["p/a.png", "q/a.png", "q/b.png"]
    assert folder == tmp_path / "out"
    assert [output.name for output, _ in runner.read_pictures(outputs)] == ["p/a.png", "q/a.png"]
    assert f"left out: {tmp_path / 'q' / 'b.png'}: wanted a readable" in capsys.readouterr().err
    with pytest.raises(ValueError, match="none of 1 pictures could be read"):
        list(runner.read_pictures(outputs[2:]))
    write_image(folder / "p" / "a.png", np.zeros((*PHOTO, 3), np.uint8))
    assert runner.find_pictures([tmp_path / "p", tmp_path / "q"], folder)[1] == tmp_path / "out2"


def test_raw_export_is_refused_by_the_runner(
    command: Command, weight: Path, runner: ModuleType, tmp_path: Path
):
    status, output = command(
        "export", "--weight", weight, "--format", "onnx", "--raw", "--output", tmp_path / "raw"
    )
    assert status == 0, output
    import onnxruntime

    outputs = onnxruntime.InferenceSession(
        str(tmp_path / "raw.onnx"), providers=["CPUExecutionProvider"]
    ).get_outputs()
    assert [o.shape for o in outputs] == [[1, 4, 6, 18], [1, 2, 3, 18]]  # 5 x 3 anchors + 3 classes
    with pytest.raises(ValueError, match="--raw"):
        runner.OnnxDetector(tmp_path / "raw.onnx")


@pytest.mark.needs_torch
def test_formats_of_mindspore_are_told(command: Command, weight: Path, tmp_path: Path):
    message = one_line_error(
        *command("export", "--weight", weight, "--format", "mindir", "--output", tmp_path / "x")
    )
    assert (
        "only MindSpore can write mindir: `--backend mindspore`; this backend writes onnx, "
        "openvino, ncnn" in message
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.needs_mindspore
def test_air_needs_ascend(command: Command, weight: Path, tmp_path: Path):
    from mindspore import get_context

    if get_context("device_target") == "Ascend":
        pytest.skip("AIR can be written here")
    message = one_line_error(
        *command("export", "--weight", weight, "--format", "air", "--output", tmp_path / "x")
    )
    assert "only be written on an Ascend device" in message
    assert not list(tmp_path.iterdir())


# ---- data ----------------------------------------------------------------------------------------


def test_anchors_from_a_recipe_and_from_a_list(
    command: Command, recipe: Path, shapes: Path, tmp_path: Path
):
    status, output = command(
        "anchors", "--config", recipe, "--num_clusters", 2, "--output_dir", tmp_path / "a"
    )
    assert status == 0, output
    line, iou = (tmp_path / "a" / "anchors2.txt").read_text(encoding="utf-8").splitlines()
    numbers = [float(word) for word in line.split(",")]
    assert len(numbers) == 4
    assert 0 < min(numbers) <= max(numbers) <= 352
    assert 0.4 < float(iou) <= 1
    assert iou in output
    status, _ = command(
        "anchors",
        "--traintxt",
        shapes / "train.txt",
        "--num_clusters",
        2,
        "--input_width",
        704,
        "--output_dir",
        tmp_path,
    )
    assert status == 0
    wide = [
        float(w)
        for w in (tmp_path / "anchors2.txt").read_text(encoding="utf-8").splitlines()[0].split(",")
    ]
    # text labels are rounded
    np.testing.assert_allclose(wide, np.array(numbers) * [2, 1, 2, 1], atol=2.0)
    assert "--model NAME (`mindyolo-ext models`) or --data FILE or --traintxt" in one_line_error(
        *command("anchors")
    )


def test_check_data_reports_and_fails_at_faults(command: Command, recipe: Path, tmp_path: Path):
    status, output = command("check-data", "--config", recipe, "--split", "val")
    assert status == 0, output
    assert "ready for training" in output
    copy = make_shapes_dataset(
        tmp_path / "copy", train_images=2, val_images=1, size=PHOTO, progress=False
    )
    (copy / "images" / "train" / "000001.txt").write_text("7 0.5 0.5 0.2 0.2\n", encoding="utf-8")
    (copy / "images" / "train" / "000002.jpg").write_bytes(b"no picture")
    status, output = command("check-data", "--config", recipe, "--data", copy / "shapes.data")
    assert status == 1
    assert "NOT ready for training" in output
    assert "000001.txt:1: wanted a class index 0..2, got 7" in output
    assert "000002.jpg: wanted a readable image" in output
    assert "error: check-data: 2 faults must be fixed before training" in output


def test_check_data_looks_at_both_sets(command: Command, tmp_path: Path):
    """Training reads both sets, so a fault in the other one is a fault of this recipe."""
    path = tmp_path / "mine.yaml"

    def check(*more: str, names: str = "[cat, dog]", val: str = "v/images") -> tuple[int, str]:
        data = (
            f"data: {{root: '{tmp_path}', train: {{format: yolo, images: t/images, names: [cat, "
            f"dog]}}, val: {{format: yolo, images: {val}, names: {names}}}}}"
        )
        path.write_text(data, encoding="utf-8")
        return command("check-data", "--config", path, *more)

    label_sets.yolo(tmp_path / "t")
    label_sets.yolo(tmp_path / "v")
    status, output = check()
    assert status == 0 and "ready for training" in output
    for split in ("train", "val"):
        status, output = check("--split", split, names="[cat, bird]")
        assert status == 1 and "other classes: 1 (must be fixed)" in output
    status, output = check("--split", "val", names="[dog, cat]")
    assert status == 0 and "in another order, which are matched by name" in output
    status, output = check(val="gone")
    assert status == 1 and "data.val: images: no such file or folder" in output
    status, _ = check("--set", "train.run_eval=false", val="gone")
    assert status == 0
    (tmp_path / "t/labels/0.txt").write_text("7 0.5 0.5 0.2 0.2\n", encoding="utf-8")
    status, output = check("--split", "val")  # evaluation needs no training images
    assert status == 0 and "data.train" in output and "0.txt:1: wanted a class index" in output
    path.write_text("data: {}", encoding="utf-8")
    assert "data.train is empty" in one_line_error(*command("check-data", "--config", path))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Config, Path, bool]]:
    """Replace the training; returns what it would have been called with."""
    calls: list[tuple[Config, Path, bool]] = []
    monkeypatch.setattr(
        "mindyolo_ext.engine.train.train",
        lambda config, save_dir, *, resume: calls.append((config, save_dir, resume)),
    )
    return calls


def test_data_file_wins_over_the_recipe_and_flags_over_both(
    command: Command, recipe: Path, shapes: Path, trained: list[tuple[Config, Path, bool]]
):
    data = shapes / "shapes.data"
    assert command("train", "--config", recipe, "--data", data)[0] == 0
    config, save_dir, resume = trained.pop()
    assert (config.train.epochs, config.train.per_batch_size, config.train.optimizer.lr) == (
        30,
        16,
        0.001,
    )
    assert config.train.schedule.milestones == [20, 26]
    assert config.input.size == [352, 352]
    assert config.data.num_classes == 3
    assert config.data.train == {"format": "darknet", "data": str(data.resolve()), "split": "train"}
    assert config.model.keywords["anchors"][0] == [12.64, 19.39]
    assert (save_dir, resume) == (Path("runs/shapes"), False)
    assert (
        command(
            "train",
            "--config",
            recipe,
            "--data",
            data,
            "--epochs",
            7,
            "--set",
            "train.optimizer.lr=0.5",
            "--img_size",
            64,
            96,
            "--save_dir",
            "elsewhere",
            "--resume",
        )[0]
        == 0
    )
    config, save_dir, resume = trained.pop()
    assert (config.train.epochs, config.train.optimizer.lr, config.input.size) == (7, 0.5, [64, 96])
    assert (save_dir, resume) == (Path("elsewhere"), True)


def test_data_file_with_subdivisions_and_start_weights(tmp_path: Path, recipe: Path):
    (tmp_path / "start.pth").touch()
    (tmp_path / "x.data").write_text(
        f"batch_size=64\nsubdivisions=4\npre_weights={tmp_path / 'start.pth'}\n", encoding="utf-8"
    )
    config = load_config(recipe, recipe_overrides(tmp_path / "x.data"))
    assert (config.train.per_batch_size, config.train.optimizer.accumulate) == (16, 4)
    assert config.train.weight == str(tmp_path / "start.pth")
    assert config.train.epochs == 2  # the recipe's, as the file says nothing
    (tmp_path / "start.pth").unlink()
    assert load_config(recipe, recipe_overrides(tmp_path / "x.data")).train.weight == ""
    (tmp_path / "x.data").write_text("epoch=3\n", encoding="utf-8")
    with pytest.raises(ValueError, match="x.data:1: unknown key epoch, did you mean epochs"):
        recipe_overrides(tmp_path / "x.data")


def test_flags_of_train_reach_the_recipe(
    command: Command, recipe: Path, trained: list[tuple[Config, Path, bool]]
):
    flags = {
        "--per_batch_size": 3,
        "--run_eval": "False",
        "--run_eval_interval": 4,
        "--log_interval": 5,
        "--seed": 6,
        "--accumulate": 7,
        "--sync_bn": "True",
        "--ema": "False",
        "--clip_grad": "True",
        "--clip_grad_value": 8,
        "--ms_loss_scaler": "static",
        "--ms_loss_scaler_value": 9,
        "--ms_amp_level": "O2",
        "--amp_dtype": "bfloat16",
        "--compile": True,
        "--channels_last": True,
        "--workers": 10,
        "--conf_thres": 0.11,
        "--iou_thres": 0.12,
        "--weight": "start.ckpt",
    }
    assert (
        command("train", "--config", recipe, *(word for pair in flags.items() for word in pair))[0]
        == 0
    )
    config = trained.pop()[0]
    train, optimizer = config.train, config.train.optimizer
    assert (train.per_batch_size, train.run_eval, train.eval_interval, train.log_interval) == (
        3,
        False,
        4,
        5,
    )
    assert (
        train.seed,
        optimizer.accumulate,
        train.sync_bn,
        train.ema_decay,
        optimizer.clip_norm,
    ) == (6, 7, True, 0, 8)
    assert (train.loss_scaler, train.loss_scale, train.amp_level, config.data.workers) == (
        "static",
        9,
        "O2",
        10,
    )
    assert (train.amp_dtype, train.compile, train.channels_last) == ("bfloat16", True, True)
    assert (config.eval.conf_thres, config.eval.iou_thres, train.weight) == (
        0.11,
        0.12,
        "start.ckpt",
    )


@pytest.mark.parametrize(
    ("flags", "clip", "ema"),
    [
        ((), 0, 0),
        (("--clip_grad", "True", "--ema", "True"), 10, 0.9999),
        (("--clip_grad", "False", "--ema", "False"), 0, 0),
        (("--clip_grad_value", 3), 3, 0),
        (("--clip_grad", "True", "--clip_grad_value", 3), 3, 0),
        (("--clip_grad", "False", "--clip_grad_value", 3), 0, 0),
        (("--set", "train.optimizer.clip_norm=5", "--clip_grad", "True"), 5, 0),
        (("--set", "train.ema_decay=0.5", "--ema", "True"), 0, 0.5),
        (("--set", "train.ema_decay=0.5", "--ema", "False"), 0, 0.5),
    ],
)
def test_clipping_and_moving_average(
    command: Command,
    recipe: Path,
    trained: list[tuple[Config, Path, bool]],
    flags: tuple,
    clip: float,
    ema: float,
):
    status, output = command("train", "--config", recipe, *flags)
    assert status == 0, output
    train = trained.pop()[0].train
    assert (train.optimizer.clip_norm, train.ema_decay) == (clip, ema)


def test_flags_change_a_recipe_that_clips_and_averages(
    command: Command, recipe: Path, tmp_path: Path, trained: list[tuple[Config, Path, bool]]
):
    own = tmp_path / "own.yaml"
    own.write_text(f"__BASE__: {recipe}\ntrain: {{ema_decay: 0.9, optimizer: {{clip_norm: 4}}}}\n")
    for flags, wanted in (
        ((), (4, 0.9)),
        (("--clip_grad", "True", "--ema", "True"), (4, 0.9)),
        (("--clip_grad", "False", "--ema", "False"), (0, 0)),
        (("--clip_grad_value", 2), (2, 0.9)),
    ):
        assert command("train", "--config", own, *flags)[0] == 0
        train = trained.pop()[0].train
        assert (train.optimizer.clip_norm, train.ema_decay) == wanted


# ---- the other verbs -----------------------------------------------------------------------------


def test_models_are_listed_with_their_terms(command: Command):
    status, output = command("models")
    assert status == 0, output
    for record in families().values():
        assert record.repository in output and record.terms in output
        for name, variant in record.variants.items():
            row = next(line for line in output.splitlines() if line.split()[:1] == [name])
            assert f"{variant.parameters:,}" in row
            assert variant.weights in output
    for name, record in families().items():
        output = command("models", name)[1]
        for model, variant in record.variants.items():
            row = next(line for line in output.splitlines() if line.split()[:1] == [model])
            assert f"{variant.parameters:,}" in row and variant.title in row
            assert all(str(value) in row for value in variant.published.values())
            assert variant.weights in output
    status, output = command("models", "yolox")
    assert status == 0 and "yolox_nano" in output and "gold_yolo_n" not in output
    assert "unknown family 'yolo', did you mean yolox?" in one_line_error(
        *command("models", "yolo")
    )


def test_settings_and_recipes_are_printed(command: Command, recipe: Path):
    status, output = command("recipe")
    assert status == 0 and "model.name: text" in output and "eval.dy_thres: number" in output
    status, output = command("recipe", "train.schedule.decay")
    assert status == 0 and len(output.splitlines()) == 2
    assert output.splitlines()[1] == "    Curve of the learning rate after the warm-up."
    message = one_line_error(*command("recipe", "train.schedul"))
    assert "did you mean train.schedule?" in message
    status, output = command("recipe", "--config", recipe, "--set", "train.epochs=9")
    assert status == 0
    assert yaml.safe_load(output)["train"]["epochs"] == 9
    assert "num_classes: 0  # the number in the data set" in output


def test_help_names_the_input_styles_of_every_family(command: Command):
    status, output = command("convert", "--help")
    assert status == 0
    words = " ".join(output.split())
    for record in families().values():
        if record.input_styles:
            assert f"{record.title}: {', '.join(record.input_styles)}" in words


def test_info_of_a_checkpoint_and_an_exported_file(command: Command, weight: Path, exported: Path):
    status, output = command("info", weight)
    assert status == 0, output
    for text in ("mindyolo_ext", "yolo_fastestv2, 3 classes", "circle, square, triangle"):
        assert text in output
    status, output = command("info", exported.with_suffix(".onnx"))
    assert status == 0, output
    assert "images 1x3x64x96" in output
    assert "boxes 1x90x4, scores 1x90x3" in output


def test_info_in_a_process_of_its_own(weight: Path):
    """Without the variables that the import of the backend sets in this process."""
    fresh = {k: v for k, v in environment().items() if k not in ("ONEDNN_MAX_CPU_ISA", "GLOG_v")}
    done = subprocess.run(
        [BIN / "mindyolo-ext", "info", weight],
        env=fresh,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "yolo_fastestv2, 3 classes" in done.stdout


@pytest.mark.all_cases
def test_demo_runs_every_step_on_the_backend_of_the_command(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    for name, value in {
        "TRAIN_IMAGES": 8,
        "VAL_IMAGES": 4,
        "EPOCHS": 1,
        "GLOBAL_BATCH": 4,
        "WANTED_AP50": -1,
    }.items():
        monkeypatch.setattr(f"mindyolo_ext.engine.demo.{name}", value)
    monkeypatch.setenv("MINDYOLO_EXT_BACKEND", "")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = tmp_path / "demo"
    status, output = command("demo", "--backend", BACKEND, "--ranks", 1, "--save_dir", folder)
    assert status == 0, output
    assert output.count("\n$ ") == 5 and "boxes in the annotated images" in output
    assert load_config(folder / "train" / "config.yaml").train.backend == BACKEND


def test_doctor_names_versions_and_times_a_convolution(command: Command):
    status, output = command("doctor")
    assert status == 0, output
    from importlib.metadata import version

    assert re.search(rf"^{BACKEND} +{re.escape(version(BACKEND))}$", output, re.MULTILINE)
    shown = {"mindspore": "ONEDNN_MAX_CPU_ISA +AVX2", "torch": "PyTorch's threads +[0-9]"}
    assert re.search(rf"^{shown[BACKEND]}", output, re.MULTILINE)
    assert re.search(rf"^backend +{BACKEND}$", output, re.MULTILINE)
    assert re.search(r"^a 3x3 convolution on the CPU +\d+ ms", output, re.MULTILINE)
    assert re.search(r"^Ascend +.* not yet run$", output, re.MULTILINE)


def test_original_checkpoint_from_file_to_boxes(command: Command, shapes: Path, tmp_path: Path):
    ours = tmp_path / "official.ckpt"
    status, output = command("convert", OFFICIAL, ours, "--report", tmp_path / "report.json")
    assert status == 0, output
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (report["model"], report["num_classes"]) == ("yolo_fastestv2", 80)
    assert len(report["mapped"]) == 371
    status, output = command("info", ours)
    assert status == 0, output
    assert report["source_sha256"][:32] in output
    status, output = command(
        "predict",
        pictures(shapes)[0],
        "--weight",
        ours,
        "--img_size",
        *SIZE,
        "--conf_thres",
        0.02,
        "--save_dir",
        tmp_path / "out",
    )
    assert status == 0, output
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text(encoding="utf-8"))
    assert len(rows[pictures(shapes)[0].name]) > 0

"""A routed model as files: chained, they find what the detector finds, and files of different
exports are not mixed.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest
from helpers import original_name
from launching import ROOT, environment
from routed_toy import SIDE, RoutedToy, images_of
from seeded import seeded_tensor

from mindyolo_ext.backend import Tensor
from mindyolo_ext.backend.parameters import parameter_values
from mindyolo_ext.checkpoint.inspect import describe
from mindyolo_ext.checkpoint.store import CheckpointMetadata, save_checkpoint
from mindyolo_ext.data.image_file import write_image
from mindyolo_ext.engine import export as exporting
from mindyolo_ext.engine.build import load_model
from mindyolo_ext.engine.export import ExportReport, describe_route, export, run_parts
from mindyolo_ext.engine.parts import parts_of
from mindyolo_ext.engine.predict import Detector
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.registry import create_model

SIZE, ROWS = (64, 96), 3 * (8 * 12 + 4 * 6 + 2 * 3)
STORED = {
    "values": [0.0, *(0.1 * i for i in range(1, 10)), 1.0],
    "lowest": 0.05,
    "highest": 0.95,
    "pictures": 4,
    "data": "drawn",
    "split": "val",
    "size": list(SIZE),
    "rectangular": False,
}


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def metadata_of(path: Path) -> dict[str, str]:
    return session(path).get_modelmeta().custom_metadata_map


# ---- DynamicDet ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weight(tmp_path_factory) -> Path:
    """Seeded weights of dy_yolov7_w0125 with 3 classes, whose router gives the test images
    different easiness.
    """
    model = create_model("dy_yolov7_w0125", 3, input_size=SIZE)
    values = {
        name: seeded_tensor(original_name(name), array.shape, 0, 1.4)
        + np.float32(name.endswith(".im"))
        for name, array in parameter_values(model).items()
    }
    path = tmp_path_factory.mktemp("routed") / "dy.ckpt"
    save_checkpoint(
        path,
        values,
        CheckpointMetadata(
            "dy_yolov7_w0125",
            3,
            ["a", "b", "c"],
            model.input_spec,
            model.architecture,
            extra={"thresholds": STORED},
        ),
    )
    return path


@pytest.fixture(scope="module")
def report(weight: Path, tmp_path_factory) -> ExportReport:
    return export(weight, ["onnx"], output=tmp_path_factory.mktemp("files") / "dy", batch_size=2)


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    rng = np.random.RandomState(0)
    return [
        (rng.uniform(0, peak, (11, 17, 3)).repeat(9, 0).repeat(9, 1)).astype(np.uint8)
        for peak in (255, 60, 140)
    ]


def check_files(report: ExportReport, kind: str) -> None:
    """Make sure that both files of a format were compared with the network and are the only ones in
    their folder.
    """
    paths = [report.files[f"{kind} {part}"] for part in ("first", "second")]
    assert [path.name for path in paths] == [f"dy-first.{kind}", f"dy-second.{kind}"]
    assert sorted(paths[0].parent.iterdir()) == paths
    for part, outputs in (("first", 8), ("second", 2)):
        assert len(report.differences[f"{kind} {part}"]) == outputs
        assert max(report.differences[f"{kind} {part}"]) < 1e-2
        assert f"{kind} {part}" in report.table()


def test_two_files_that_were_compared(report: ExportReport):
    check_files(report, "onnx")


@pytest.mark.all_cases
@pytest.mark.needs_mindspore
def test_mindir_of_dynamicdet(weight: Path, tmp_path: Path):
    check_files(export(weight, ["mindir"], output=tmp_path / "dy"), "mindir")


def test_inputs_and_outputs_have_names_and_shapes(report: ExportReport):
    """The first file takes the batch, the second one image of it."""
    shapes = {}
    for part in ("first", "second"):
        its = session(report.files[f"onnx {part}"])
        shapes[part] = [
            {value.name: value.shape for value in values}
            for values in (its.get_inputs(), its.get_outputs())
        ]
    features = {
        f"feature{i}": [channels, SIZE[0] // 2 ** (i + 1), SIZE[1] // 2 ** (i + 1)]
        for i, channels in enumerate((8, 32, 64, 128, 128))
    }
    assert shapes["first"] == [
        {"images": [2, 3, *SIZE]},
        {
            "boxes": [2, ROWS, 4],
            "scores": [2, ROWS, 3],
            "easiness": [2],
            **{name: [2, *shape] for name, shape in features.items()},
        },
    ]
    assert shapes["second"] == [
        {"images": [1, 3, *SIZE], **{name: [1, *shape] for name, shape in features.items()}},
        {"boxes": [1, ROWS, 4], "scores": [1, ROWS, 3]},
    ]


def test_files_name_each_other_and_carry_the_thresholds(report: ExportReport):
    first, second = (metadata_of(report.files[f"onnx {part}"]) for part in ("first", "second"))
    for part, metadata in (("first", first), ("second", second)):
        assert metadata["part"] == part
        assert json.loads(metadata["files"]) == {
            "first": "dy-first.onnx",
            "second": "dy-second.onnx",
        }
        assert json.loads(metadata["thresholds"]) == STORED
        assert (metadata["model"], float(metadata["dy_thres"])) == ("dy_yolov7_w0125", 0.5)
        assert json.loads(metadata["class_names"]) == ["a", "b", "c"]
    assert first["pair"] == second["pair"] and len(first["pair"]) == 16


def test_info_says_what_a_part_is(report: ExportReport):
    info = describe(report.files["onnx first"])
    assert info.part == "first detector and router"
    assert "dy_yolov7_w0125, 3 classes, first detector and router only" in info.table()
    assert "90 % 0.1000" in info.table() and "4 pictures of drawn" in info.table()
    assert "second detector only" in describe(report.files["onnx second"]).table()


@pytest.mark.all_cases
def test_chained_files_find_what_the_detector_finds(
    weight: Path, report: ExportReport, routed_runner: ModuleType, photos: list[np.ndarray]
):
    """Easy images, hard ones, and batches of both."""
    theirs = routed_runner.RoutedOnnxDetector(
        [report.files["onnx second"], report.files["onnx first"]]
    )
    ours, counts = Detector(weight), []
    theirs.predict_batch(photos[:2])
    middle = float(theirs.easiness.mean())
    assert np.ptp(theirs.easiness) > 1e-3
    for threshold, batch in (
        (0.0, [0, 1]),
        (1.0, [0, 1]),
        (middle, [0, 1]),
        (middle, [1, 0]),
        (middle, [2]),
    ):
        theirs.dy_thres = ours._predictor.dy_thres = threshold
        scores = np.stack(
            [ours._predictor(theirs.input_spec.prepare(photos[i])[0][None])[1] for i in batch]
        )
        best = np.sort(scores.max(-1).ravel())[-60:-20]
        place = np.diff(best).argmax()  # no score near the threshold
        theirs.options = ours.options = replace(
            theirs.options, conf_thres=float(best[place : place + 2].mean())
        )
        found = theirs.predict_batch([photos[i] for i in batch])
        for i, rows, easiness, hard in zip(batch, found, theirs.easiness, theirs.hard, strict=True):
            wanted = ours.predict(photos[i])
            assert easiness == pytest.approx(ours._predictor.easiness[0], abs=1e-5)
            assert hard == (ours._predictor.easiness[0] < threshold)
            assert len(rows) == len(wanted)
            np.testing.assert_allclose(rows[:, :4], wanted.boxes, rtol=0, atol=0.01)
            np.testing.assert_allclose(rows[:, 4], wanted.scores, rtol=0, atol=1e-4)
            assert rows[:, 5].tolist() == wanted.labels.tolist()
        counts.append((sum(map(len, found)), theirs.hard.tolist()))
    assert [sum(hard) for _, hard in counts[:4]] == [0, 2, 1, 1]
    assert counts[2][1] == counts[3][1][::-1] and min(count for count, _ in counts[:4]) > 1
    assert counts[0][0] != counts[1][0]  # the two detectors disagree


def test_raw_heads_decode_to_the_boxes_of_the_files(weight: Path, report: ExportReport):
    """By the formulas of deploy/README.md, for both detectors."""
    images = np.random.RandomState(1).uniform(0, 1, (1, 3, *SIZE)).astype(np.float32)
    deploy = load_model(weight)[0].to_deploy()
    raw = [job.expected for job in run_parts(parts_of(deploy, raw=True), images)]
    assert [len(expected) for expected in raw] == [9, 3]
    first = session(report.files["onnx first"]).run(
        ["boxes", "scores", "easiness"], {"images": images.repeat(2, 0)}
    )
    np.testing.assert_allclose(raw[0]["easiness"], first[2][:1], atol=1e-6)
    features = {name: array for name, array in raw[0].items() if name.startswith("feature")}
    second = session(report.files["onnx second"]).run(
        ["boxes", "scores"], {"images": images, **features}
    )
    for heads, (boxes, scores) in zip(raw, (first[:2], second)):
        decoded = decode([heads[f"output{level}"] for level in range(3)], deploy.anchors)
        np.testing.assert_allclose(decoded[0], boxes[0], rtol=1e-4, atol=5e-3)
        np.testing.assert_allclose(decoded[1], scores[0], rtol=0, atol=1e-4)
    assert np.abs(first[0][0] - second[0][0]).max() > 1


def decode(
    heads: list[np.ndarray], anchors: Sequence[Sequence[float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (A, 4) and scores (A, 3) of logits (1, 24, h, w) per level."""
    boxes, scores = [], []
    for head, stride, sides in zip(heads, (8, 16, 32), np.array(anchors).reshape(3, 3, 1, 1, 2)):
        rows, columns = SIZE[0] // stride, SIZE[1] // stride
        v = 1 / (
            1 + np.exp(-head.reshape(3, 8, rows, columns).transpose(0, 2, 3, 1).astype(np.float64))
        )
        cell = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1)
        center, size = (2 * v[..., :2] - 0.5 + cell) * stride, (2 * v[..., 2:4]) ** 2 * sides
        boxes.append(np.concatenate((center - size / 2, center + size / 2), axis=-1).reshape(-1, 4))
        scores.append((v[..., 4:5] * v[..., 5:]).reshape(-1, 3))
    return np.concatenate(boxes), np.concatenate(scores)


def test_program_routes_a_folder(report: ExportReport, photos: list[np.ndarray], tmp_path: Path):
    """Three images in batches of two; the share of easy images is reported."""
    (tmp_path / "in").mkdir()
    for i, photo in enumerate(photos):
        write_image(tmp_path / "in" / f"{i}.png", photo)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    program = [
        sys.executable,
        ROOT / "deploy" / "routed_runtime.py",
        report.files["onnx first"],
        report.files["onnx second"],
        tmp_path / "in",
        "--save_dir",
        tmp_path / "out",
    ]
    done = subprocess.run(
        [*program, "--easy", "0"], env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("boxes, hard (0.4") == 3
    assert "3 pictures, 0.0 % easy at threshold 1.000000" in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png", "2.png"]
    done = subprocess.run(
        [*program[:3], tmp_path / "in"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (
        done.returncode == 1
        and "got the parts first of a routed model; wanted each of first, second" in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_the_other_runner_says_which_program_runs_a_part(report: ExportReport, runner: ModuleType):
    with pytest.raises(
        ValueError,
        match="dy-first.onnx: holds a part of a routed model only, the first detector and "
        "router; run all its parts with `python deploy/routed_runtime.py dy-first.onnx "
        "dy-second.onnx",
    ):
        runner.OnnxDetector(report.files["onnx first"])


# ---- a toy model: tests without a network --------------------------------------------------------


def toy_files(
    monkeypatch: pytest.MonkeyPatch,
    stem: Path,
    *,
    seed: int = 2,
    router: bool = True,
    stored: dict | None = None,
    form: str = "onnx",
    **options: object,
) -> list[Path]:
    """The files of a toy model; of its checkpoint, only the digest is used."""
    stem.parent.mkdir(exist_ok=True)
    weight = stem.with_suffix(".ckpt")
    weight.write_bytes(bytes([seed]))
    model = RoutedToy(seed=seed, router=router)
    metadata = CheckpointMetadata(
        "toy", 1, ["a"], model.input_spec, extra={"thresholds": stored} if stored else {}
    )
    monkeypatch.setattr(exporting, "load_model", lambda _: (model, metadata))
    return list(export(weight, [form], output=stem, **options).files.values())


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> list[Path]:
    """Both files, without thresholds."""
    with pytest.MonkeyPatch.context() as patch:
        return toy_files(patch, tmp_path_factory.mktemp("toy") / "toy")


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> list[Path]:
    """Three files of the same model, with thresholds for another size."""
    with pytest.MonkeyPatch.context() as patch:
        return toy_files(patch, tmp_path_factory.mktemp("three") / "toy", parts=3, stored=STORED)


def grey(easiness: float) -> np.ndarray:
    """An image of known easiness."""
    return (images_of([easiness])[0].transpose(1, 2, 0).clip(0, 1) * 255).astype(np.uint8)


@pytest.mark.all_cases
def test_three_files_give_what_two_give(
    toy: list[Path], three: list[Path], routed_runner: ModuleType
):
    assert [path.name for path in three] == ["toy-router.onnx", "toy-first.onnx", "toy-second.onnx"]
    both = [routed_runner.RoutedOnnxDetector(paths, conf_thres=0.01) for paths in (toy, three)]
    for easiness in (0.3, 0.7):
        found = [detector.predict(grey(easiness)) for detector in both]
        assert len(found[0]) and np.array_equal(*found)
        assert [detector.hard.tolist() for detector in both] == [[easiness < 0.5]] * 2


def test_another_thread_does_not_change_the_exit(toy: list[Path], routed_runner: ModuleType):
    detector = routed_runner.RoutedOnnxDetector(toy, conf_thres=0.01)
    wanted = [detector.predict(grey(easiness)) for easiness in (0.3, 0.7)]
    leave = detector._exit

    def leave_later(*arguments: object) -> tuple[np.ndarray, np.ndarray]:
        detector.hard = ~detector.hard  # what an image of the other kind does meanwhile
        return leave(*arguments)

    detector._exit = leave_later
    for easiness, rows in zip((0.3, 0.7), wanted):
        assert np.array_equal(detector.predict(grey(easiness)), rows)


def test_raw_files_name_logits_and_are_refused_by_the_runner(
    routed_runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    paths = toy_files(monkeypatch, tmp_path / "raw", raw=True, parts=3)
    names = [" ".join(value.name for value in session(path).get_outputs()) for path in paths]
    assert names == ["easiness feature0 feature1", "output0", "output0"]
    assert metadata_of(paths[0])["outputs"] == "raw"
    images = images_of([0.3])
    known = dict(
        zip(("easiness", "feature0", "feature1"), session(paths[0]).run(None, {"images": images}))
    )
    np.testing.assert_allclose(known.pop("easiness"), [0.3], atol=1e-5)
    logits = (
        session(paths[1]).run(None, known)[0],
        session(paths[2]).run(None, {"images": images, **known})[0],
    )
    source = RoutedToy(seed=2)
    _, features = source.glance(Tensor(images))
    np.testing.assert_allclose(
        logits[0], source.first_heads(features)[0].asnumpy(), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        logits[1], source.second_heads(Tensor(images), features)[0].asnumpy(), rtol=1e-4, atol=1e-4
    )
    with pytest.raises(ValueError, match="was exported with --raw"):
        routed_runner.RoutedOnnxDetector(paths)


@pytest.mark.needs_mindspore
def test_mindir_files_are_chained_and_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    paths = toy_files(monkeypatch, tmp_path / "toy", form="mindir", batch_size=2)
    assert [path.name for path in paths] == ["toy-first.mindir", "toy-second.mindir"]
    assert [describe(path).part for path in paths] == [
        "first detector and router",
        "second detector",
    ]
    assert describe(paths[0]).metadata["pair"] == describe(paths[1]).metadata["pair"]
    first, second = (exporting._mindir_runner(path) for path in paths)
    images = images_of([0.2, 0.8])
    _, _, easiness, *features = first({"images": images})
    np.testing.assert_allclose(easiness, [0.2, 0.8], atol=1e-5)
    boxes, _ = second(
        {"images": images[:1], **{f"feature{i}": array[:1] for i, array in enumerate(features)}}
    )
    source = RoutedToy(seed=2)
    wanted = source.second(Tensor(images[:1]), source.glance(Tensor(images[:1]))[1])[0].asnumpy()
    np.testing.assert_allclose(boxes, wanted, rtol=1e-4, atol=1e-3)


def test_the_second_file_runs_for_hard_pictures_only(
    toy: list[Path], routed_runner: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    detector, calls = routed_runner.RoutedOnnxDetector(toy), []
    second = detector.parts["second"]
    run = second.run
    monkeypatch.setattr(
        second, "run", lambda arrays: calls.append(len(arrays["images"])) or run(arrays)
    )
    detector.predict(grey(0.8))
    assert calls == []
    detector.predict(grey(0.2))
    assert calls == [1]
    with pytest.raises(ValueError, match="the files take 1 to 1 pictures, got 2"):
        detector.predict_batch([grey(0.2)] * 2)


def test_wrong_sets_of_files_are_refused(
    toy: list[Path], three: list[Path], routed_runner: ModuleType, tmp_path: Path
):
    load = routed_runner.RoutedOnnxDetector
    with pytest.raises(ValueError, match="do not belong together; wanted the files of one export"):
        load([toy[0], three[2]])
    with pytest.raises(
        ValueError,
        match="got the parts second of a routed model; wanted each of first, second once "
        r"\(toy-first.onnx toy-second.onnx\)",
    ):
        load(toy[1:])
    with pytest.raises(ValueError, match="got the parts first, first, second of a routed model"):
        load([toy[0], *toy])
    with pytest.raises(
        ValueError,
        match="got the parts router, second of a routed model; wanted each of router, fi",
    ):
        load(three[::2])
    with pytest.raises(FileNotFoundError):
        load([toy[0], tmp_path / "no.onnx"])


def test_exports_of_other_weights_or_sizes_have_other_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pairs = []
    monkeypatch.setattr(exporting, "run_parts", lambda *_: [])  # nothing is compiled
    monkeypatch.setattr(
        exporting, "_export_format", lambda *given, **_: pairs.append(given[3]["pair"])
    )
    for seed, options in (
        (1, {}),
        (1, {}),
        (2, {}),
        (1, {"size": (64, 32)}),
        (1, {"raw": True}),
        (1, {"parts": 3}),
    ):
        toy_files(monkeypatch, tmp_path / "toy", seed=seed, **options)
    assert pairs[0] == pairs[1] and len(set(pairs)) == 5


def test_a_model_without_router_is_one_file(
    routed_runner: ModuleType,
    runner: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    with caplog.at_level("INFO", "mindyolo_ext"):
        (path,) = toy_files(monkeypatch, tmp_path / "cascade", router=False)
    assert path.name == "cascade.onnx"
    assert "has no router yet, so all images are hard; exporting it as one file" in caplog.text
    assert "part" not in metadata_of(path)
    images, source = images_of([0.9]), RoutedToy(seed=2)
    _, features = source.glance(Tensor(images))
    (boxes,) = session(path).run(["boxes"], {"images": images})
    np.testing.assert_allclose(
        boxes, source.second(Tensor(images), features)[0].asnumpy(), rtol=1e-4, atol=1e-3
    )
    assert np.abs(boxes - source.first(features)[0].asnumpy()).max() > 0.1
    runner.OnnxDetector(path)
    with pytest.raises(
        ValueError, match="holds a whole model, not a part of a routed one; run it with"
    ):
        routed_runner.RoutedOnnxDetector([path])


def test_thresholds_travel(toy: list[Path], three: list[Path], routed_runner: ModuleType):
    load = routed_runner.RoutedOnnxDetector
    assert load(three).dy_thres == load(toy).dy_thres == 0.5
    assert load(three, easy=0.7).dy_thres == pytest.approx(0.3)
    assert load(three, dy_thres=0.25).dy_thres == 0.25
    assert load(toy, easy=1).dy_thres == 0 and load(toy, easy=0).dy_thres == 1
    with pytest.raises(
        ValueError,
        match="toy-first.onnx: holds no thresholds, so the one for 70 % easy images is unknown",
    ):
        load(toy, easy=0.7)
    with pytest.raises(ValueError, match="exclude each other"):
        load(three, easy=0.7, dy_thres=0.1)
    with pytest.raises(ValueError, match="wanted a threshold in 0..1"):
        load(three, dy_thres=1.5)
    with pytest.raises(ValueError, match="wanted the share of easy images in 0..1"):
        load(three, easy=90)


def test_thresholds_of_another_size_are_warned_about(caplog: pytest.LogCaptureFixture):
    for size, warned in (((SIDE, SIDE), True), (SIZE, False)):
        caplog.clear()
        metadata = CheckpointMetadata(
            "toy", 1, input_spec=InputSpec(size=size), extra={"thresholds": STORED}
        )
        assert json.loads(describe_route(metadata, 0.5)["thresholds"]) == STORED
        assert (
            "thresholds were measured with input [64, 96], not [32, 32]" in caplog.text
        ) == warned
    assert json.loads(describe_route(CheckpointMetadata("toy", 1), 0.5)["thresholds"]) is None


def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nor is its partner, which was correct."""
    plain = exporting._onnx_runner

    def wrong(path: Path):
        run = plain(path)
        return lambda inputs: [array + 0.1 * ("second" in path.name) for array in run(inputs)]

    monkeypatch.setattr(exporting, "_onnx_runner", wrong)
    with pytest.raises(ValueError, match="boxes of the onnx second file differs by 0.1"):
        toy_files(monkeypatch, tmp_path / "bad")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.ckpt"]


def test_chained_files_are_compared_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The second file may amplify small errors of the first."""
    plain = exporting._check

    def spoilt(job, kind, path, known, report):
        found = plain(job, kind, path, known, report)
        return {name: array + (name == "feature0") for name, array in found.items()}

    monkeypatch.setattr(exporting, "_check", spoilt)
    with pytest.raises(ValueError, match="of the onnx second file differs"):
        toy_files(monkeypatch, tmp_path / "bad")


def test_parts_of_other_models_and_numbers_are_refused():
    with pytest.raises(ValueError, match="a routed model becomes 2 or 3 files, got 4"):
        parts_of(RoutedToy(), raw=False, count=4)
    for model in (create_model("yolo_fastestv2", 1), RoutedToy(router=False)):
        with pytest.raises(ValueError, match="parts=2: .* without a router is one network"):
            parts_of(model, raw=False, count=2)


# ---- the same files behind the detector ----------------------------------------------------------


@pytest.mark.all_cases
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_part_brings_the_others_along_and_routes(
    runtime: str, weight: Path, report: ExportReport, photos: list[np.ndarray]
):
    """Any file of the export may be given; the results are those of the checkpoint."""
    pytest.importorskip(runtime)
    theirs = Detector(report.files["onnx second"], runtime=runtime, conf_thres=0.2)
    ours = Detector(weight, conf_thres=0.2)
    easiness = []
    for photo in photos[:2]:
        ours.predict(photo)
        easiness.append(float(ours._predictor.easiness[0]))
    theirs._predictor.dy_thres = ours._predictor.dy_thres = float(np.mean(easiness))
    theirs._predictor.reset()
    ours._predictor.reset()
    for photo in photos[:2]:
        tensors = theirs.input_spec.prepare(photo)[0][None]
        for mine, wanted in zip(theirs._predictor(tensors), ours._predictor(tensors), strict=True):
            np.testing.assert_allclose(mine, wanted, rtol=1e-3, atol=1e-2)
        np.testing.assert_allclose(theirs._predictor.easiness, ours._predictor.easiness, atol=1e-5)
    assert theirs.routing() == ours.routing()
    assert theirs.routing().startswith("1 easy, 1 hard")
    both = np.stack([theirs.input_spec.prepare(photo)[0] for photo in photos])
    boxes, scores = theirs._predictor(both, valid=2)
    assert boxes.shape == (3, ROWS, 4) and not boxes[2].any() and not scores[2].any()
    assert boxes[:2].any((1, 2)).all()


def test_three_files_route_behind_the_detector_too(toy: list[Path], three: list[Path]):
    both = [Detector(paths[0], conf_thres=0.01) for paths in (toy, three)]
    for easiness in (0.3, 0.7):
        first, second = (detector.predict(grey(easiness)) for detector in both)
        assert len(first) and np.array_equal(first.boxes, second.boxes)
    assert both[0].routing() == both[1].routing() == "1 easy, 1 hard at threshold 0.500000"


def test_easy_shares_come_from_the_files(toy: list[Path], three: list[Path]):
    assert Detector(three[0], easy=0.5)._predictor.dy_thres == pytest.approx(0.5)
    assert Detector(toy[0], easy=1)._predictor.dy_thres == 0
    with pytest.raises(ValueError, match="holds no thresholds, so the one for"):
        Detector(toy[0], easy=0.5)
    with pytest.raises(ValueError, match="wanted a threshold in 0..1"):
        Detector(toy[0], dy_thres=2)
    with pytest.raises(ValueError, match="exclude each other"):
        Detector(toy[0], dy_thres=0.5, easy=0.5)


@pytest.mark.all_cases
def test_parts_of_two_exports_do_not_mix_behind_the_detector(
    toy: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = toy_files(monkeypatch, tmp_path / "toy", seed=3)
    with pytest.raises(FileNotFoundError, match="toy-second.onnx: no such file"):
        other[1].unlink()
        Detector(other[0])
    other[1].write_bytes(toy[1].read_bytes())
    with pytest.raises(ValueError, match="do not belong together; wanted second of the same"):
        Detector(other[0])


@pytest.mark.all_cases
def test_a_share_of_easy_images_is_measured_in_another_runtime(weight: Path):
    """The work of ``thresholds --runtime`` between the command and the checkpoint."""
    from mindyolo_ext.config import Config, override
    from mindyolo_ext.engine.network import network_for_test

    config = override(Config(), ["model.name=dy_yolov7_w0125", "input.size=[]"])
    predictor = network_for_test(weight, config, runtime="onnxruntime").predictor
    images = np.random.RandomState(1).randint(0, 255, (2, *SIZE, 3)).astype(np.uint8)
    predictor.glance(images)
    ours = Detector(weight)._predictor
    ours.glance(images)
    np.testing.assert_allclose(predictor.easiness, ours.easiness, atol=1e-5)

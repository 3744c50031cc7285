"""YOLOX checkpoints of the original and of MindYOLO become ours and go back, with the original's
numbers.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers import DEFAULT_GOLDEN, assert_same
from seeded import seeded_state_dict

from mindyolo_ext.checkpoint.ckpt_file import write_ckpt
from mindyolo_ext.checkpoint.convert import convert, export_torch
from mindyolo_ext.checkpoint.reader import read_checkpoint
from mindyolo_ext.checkpoint.store import load_checkpoint, save_checkpoint
from mindyolo_ext.checkpoint.torch_writer import write_torch_checkpoint
from mindyolo_ext.checkpoint.verify import verify
from mindyolo_ext.errors import CheckpointError

GOLDEN = DEFAULT_GOLDEN / "yolox" / "yolox_nano"
UNCLEAR = "the input that the weights were trained with is unknown"
PUBLISHED = {
    "yolox_nano_0.1.1rc0_bnident.pth": (80, "bgr"),
    "yolox_nano_0.0.1legacy_bnident.pth": (80, "rgb"),
    "yolox_nano_1class.pth": (1, "rgb"),
}


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    """Seeded weights under the original's names; every batch norm has seen 17 batches."""
    weights = seeded_state_dict(GOLDEN, 0)
    return {
        name: np.array(17) if name.endswith("num_batches_tracked") else array
        for name, array in weights.items()
    }


@pytest.fixture(scope="module")
def official(tmp_path_factory, state) -> Path:
    """The original's training checkpoint."""
    path = tmp_path_factory.mktemp("yolox") / "last_epoch_ckpt.pth"
    write_torch_checkpoint(path, state, wrap="model")
    return path


def numbered(state) -> dict[str, np.ndarray]:
    """The weights under MindYOLO's names."""
    names = json.loads((GOLDEN / "mindyolo_map.json").read_text(encoding="utf-8"))
    return {theirs: state[name] for name, theirs in names.items()}


@pytest.mark.parametrize(("wrap", "prefix"), [(None, ""), ("model", ""), ("model", "module.")])
def test_there_and_back_bit_for_bit(tmp_path, state, wrap, prefix):
    write_torch_checkpoint(
        tmp_path / "x.pth", {prefix + name: array for name, array in state.items()}, wrap=wrap
    )
    report = convert(tmp_path / "x.pth", tmp_path / "x.ckpt")
    assert (report.model, report.num_classes, len(report.mapped), len(report.ignored)) == (
        "yolox_nano",
        80,
        538,
        104,
    )
    assert (
        report.mapped["backbone.backbone.stem.conv.bn.running_var"]
        == "backbone.backbone.stem.conv.bn.moving_variance"
    )
    export_torch(tmp_path / "x.ckpt", tmp_path / "back.pth")
    assert_same(read_checkpoint(tmp_path / "back.pth").tensors, state)


def test_mindyolos_checkpoint(tmp_path, state, official):
    write_ckpt(
        tmp_path / "theirs.ckpt",
        {
            **numbered(state),
            "moments.model.model.0.conv.conv.weight": np.zeros((16, 12, 3, 3), np.float32),
            "updates": np.array(9.0),
        },
    )
    report = convert(tmp_path / "theirs.ckpt", tmp_path / "x.ckpt")
    assert (report.model, report.used_ema, report.warnings) == ("yolox_nano", False, [])
    assert report.ignored == dict.fromkeys(
        ("moments.model.model.0.conv.conv.weight", "updates"), "state of an optimizer, not a weight"
    )
    assert report.input == "mindyolo: RGB 0..1, letterbox center, 416x416 (MindYOLO's names)"
    convert(official, tmp_path / "y.ckpt")
    ours, metadata = load_checkpoint(tmp_path / "x.ckpt")
    assert (metadata.input_spec.color, metadata.input_spec.pad_anchor) == ("rgb", "center")
    wanted = load_checkpoint(tmp_path / "y.ckpt")[0]
    assert_same(dict(sorted(ours.items())), dict(sorted(wanted.items())))


@pytest.mark.parametrize(
    ("both", "prefer_ema", "used_ema"),
    [(False, True, True), (False, False, True), (True, True, True), (True, False, False)],
)
def test_mindyolos_moving_average(tmp_path, state, both, prefer_ema, used_ema):
    weights = numbered(state)
    averaged = {f"ema.{name}": array + 1 for name, array in weights.items()}
    write_ckpt(tmp_path / "theirs.ckpt", {**averaged, **(weights if both else {})})
    report = convert(tmp_path / "theirs.ckpt", tmp_path / "x.ckpt", prefer_ema=prefer_ema)
    assert (report.used_ema, len(report.mapped), report.ignored) == (used_ema, 538, {})
    bias = load_checkpoint(tmp_path / "x.ckpt")[0]["head.cls_preds.0.bias"]
    np.testing.assert_array_equal(bias, state["head.cls_preds.0.bias"] + used_ema)


def scaled(state, variance: float) -> dict[str, np.ndarray]:
    """The weights with a first batch norm whose statistics come from pixels of ``variance``."""
    stem = "backbone.backbone.stem.conv"
    squares = (state[f"{stem}.conv.weight"] ** 2).sum((1, 2, 3))
    return {**state, f"{stem}.bn.running_var": (variance * squares).astype(np.float32)}


def test_the_input_is_recorded(tmp_path, state):
    from mindyolo_ext.engine.build import load_model

    write_torch_checkpoint(tmp_path / "x.pth", scaled(state, 1.0))
    report = convert(tmp_path / "x.pth", tmp_path / "x.ckpt")
    assert report.warnings == []
    assert report.input == (
        "legacy: RGB 0..1, mean and deviation, letterbox topleft, 416x416 (the first layer fits "
        "ImageNet-normalized pixels: variance 1)"
    )
    assert report.input in report.table()
    spec = load_model(tmp_path / "x.ckpt")[0].input_spec
    assert (spec.color, spec.mean, spec.std) == (
        "rgb",
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
    )
    report = convert(tmp_path / "x.pth", tmp_path / "x.ckpt", input_style="official")
    assert report.warnings == [
        "--input official contradicts the weights, which indicate legacy (the first layer fits "
        "ImageNet-normalized pixels: variance 1)"
    ]
    assert report.input == "official: BGR 0..255, letterbox topleft, 416x416 (--input)"
    assert load_model(tmp_path / "x.ckpt")[0].input_spec.color == "bgr"
    assert convert(tmp_path / "x.pth", tmp_path / "x.ckpt", input_style="legacy").warnings == []


def test_an_unclear_input_is_the_usual_one_with_a_warning(tmp_path, state):
    write_torch_checkpoint(tmp_path / "x.pth", scaled(state, 100.0))
    report = convert(tmp_path / "x.pth", tmp_path / "x.ckpt")
    assert [text.split(" (")[0] for text in report.warnings] == [UNCLEAR]
    assert "--input (official, legacy, mindyolo)" in report.warnings[0]
    assert report.input == "official: BGR 0..255, letterbox topleft, 416x416 (default)"
    assert convert(tmp_path / "x.pth", tmp_path / "x.ckpt", input_style="mindyolo").warnings == []
    assert load_checkpoint(tmp_path / "x.ckpt")[1].input_spec.pad_anchor == "center"


def test_input_styles_that_do_not_exist(tmp_path, official):
    with pytest.raises(
        CheckpointError,
        match="yolox_nano: has no input style 'rgb', wanted one of official, legacy",
    ):
        convert(official, tmp_path / "x.ckpt", input_style="rgb")
    other = DEFAULT_GOLDEN / "yolo_fastestv2" / "official_format_yolo_fastestv2.pth"
    with pytest.raises(
        CheckpointError, match="has no input style 'official', its input is always the same"
    ):
        convert(other, tmp_path / "x.ckpt", input_style="official")
    assert convert(other, tmp_path / "x.ckpt").input == ""


def test_the_command(tmp_path, state):
    from mindyolo_ext.cli import main

    write_torch_checkpoint(tmp_path / "x.pth", scaled(state, 3000.0))
    assert (
        main(["convert", str(tmp_path / "x.pth"), str(tmp_path / "x.ckpt"), "--input", "legacy"])
        == 0
    )
    assert load_checkpoint(tmp_path / "x.ckpt")[1].input_spec.color == "rgb"
    assert main(["convert", str(tmp_path / "x.pth"), str(tmp_path / "x.ckpt")]) == 0
    assert load_checkpoint(tmp_path / "x.ckpt")[1].input_spec.color == "bgr"


def test_a_trained_checkpoint_tells_its_updates(tmp_path, official):
    convert(official, tmp_path / "x.ckpt")
    parameters, metadata = load_checkpoint(tmp_path / "x.ckpt")
    metadata.extra = {"num_batches_tracked": 123}  # as train.py writes it
    save_checkpoint(tmp_path / "y.ckpt", parameters, metadata)
    export_torch(tmp_path / "y.ckpt", tmp_path / "y.pth")
    counters = {
        name: int(array)
        for name, array in read_checkpoint(tmp_path / "y.pth").tensors.items()
        if name.endswith("num_batches_tracked")
    }
    assert len(counters) == 104
    assert set(counters.values()) == {123}


def test_a_training_checkpoint_of_the_original(tmp_path, shared):
    """With the optimizer's momentum and NumPy numbers beside the weights."""
    source = shared / "reference" / "yolox" / "official_format_yolox_nano.pt"
    if not source.exists():
        pytest.skip(f"no {source}")
    report = convert(source, tmp_path / "x.ckpt")
    assert (report.entry, report.used_ema, len(report.mapped)) == ("model", False, 538)
    assert load_checkpoint(tmp_path / "x.ckpt")[1].epoch == 10
    export_torch(tmp_path / "x.ckpt", tmp_path / "back.pth")
    assert_same(read_checkpoint(tmp_path / "back.pth").tensors, seeded_state_dict(GOLDEN, 0))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights(tmp_path, shared, name):
    source = shared / "weights" / "yolox" / name
    if not source.exists():
        pytest.skip(f"no {source}")
    report = convert(source, tmp_path / "x.ckpt")
    metadata = load_checkpoint(tmp_path / "x.ckpt")[1]
    assert (report.num_classes, metadata.input_spec.color, report.warnings) == (
        *PUBLISHED[name],
        [],
    )
    export_torch(tmp_path / "x.ckpt", tmp_path / "back.pth")
    assert_same(read_checkpoint(tmp_path / "back.pth").tensors, read_checkpoint(source).tensors)


# ---- verify --------------------------------------------------------------------------------------


def changed(source: Path, target: Path) -> Path:
    """The checkpoint with one bias changed by 0.01."""
    parameters, metadata = load_checkpoint(source)
    parameters["head.obj_preds.1.bias"] = parameters["head.obj_preds.1.bias"] + np.float32(0.01)
    save_checkpoint(target, parameters, metadata)
    return target


def test_stored_arrays(tmp_path, official):
    convert(official, tmp_path / "x.ckpt")
    report = verify(tmp_path / "x.ckpt", arrays=GOLDEN / "case_seed0.npz")
    assert report.passed
    assert report.skipped == ["boxes", "probabilities"]  # parts of eval_decoded
    assert {row.name for row in report.rows} == {
        "eval_raw_p3",
        "eval_raw_p4",
        "eval_raw_p5",
        "eval_decoded",
        "deploy_decoded",
    }
    assert max(row.relative for row in report.rows) < 2e-6
    report = verify(
        changed(tmp_path / "x.ckpt", tmp_path / "y.ckpt"), arrays=GOLDEN / "case_seed0.npz"
    )
    assert not report.passed
    wrong = {row.name: row.largest for row in report.rows if row.relative > 1e-4}
    assert wrong == {"eval_raw_p4": pytest.approx(0.01, abs=1e-4)}


def test_stored_arrays_of_another_kind(tmp_path, official):
    convert(official, tmp_path / "x.ckpt")
    np.savez(tmp_path / "case_seed0.npz", a=np.zeros(1))
    with pytest.raises(CheckpointError, match="yolox: the stored arrays have no eval_raw_p3"):
        verify(tmp_path / "x.ckpt", arrays=tmp_path / "case_seed0.npz")


def test_the_original_beside_it(tmp_path, official):
    """Needs MINDYOLO_EXT_TORCH_PYTHON (a Python with PyTorch) and MINDYOLO_EXT_TORCH_REPO_YOLOX
    (a clone).
    """
    python, repo = (
        os.environ.get("MINDYOLO_EXT_TORCH_PYTHON"),
        os.environ.get("MINDYOLO_EXT_TORCH_REPO_YOLOX"),
    )
    if not python or not repo:
        pytest.skip("no PyTorch or no clone of the original")
    # pixels of 0..1, as in the stored arrays
    convert(official, tmp_path / "x.ckpt", input_style="mindyolo")
    keywords = {
        "torch_repo": repo,
        "torch_python": python,
        "source": official,
        "size": (64, 96),
        "batch": 2,
    }
    report = verify(tmp_path / "x.ckpt", **keywords)
    assert report.passed
    assert sum(row.kind == "layer" for row in report.rows) == 495
    assert {row.name for row in report.rows if row.kind == "output"} == {"boxes", "probabilities"}
    report = verify(changed(tmp_path / "x.ckpt", tmp_path / "y.ckpt"), **keywords)
    assert not report.passed
    assert report.largest("output", 1)[0].name == "probabilities"
    assert report.largest("layer", 1)[0].name == "head.obj_preds.1"

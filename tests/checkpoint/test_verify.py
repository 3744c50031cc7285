"""``verify`` tells equal from different checkpoints, against stored arrays and against the original
program.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import DEFAULT_GOLDEN
from seeded import seeded_images as reference_images

from mindyolo_ext.checkpoint import verify as module
from mindyolo_ext.checkpoint.convert import convert
from mindyolo_ext.checkpoint.store import load_checkpoint, save_checkpoint
from mindyolo_ext.checkpoint.verify import Difference, VerifyReport, seeded_images, verify
from mindyolo_ext.errors import CheckpointError

GOLDEN = DEFAULT_GOLDEN / "yolo_fastestv2"
pytestmark = pytest.mark.usefixtures("quiet_logging")
OFFICIAL = GOLDEN / "official_format_yolo_fastestv2.pth"
CASE = GOLDEN / "yolo_fastestv2" / "case_seed0.npz"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("verify") / "x.ckpt"
    convert(OFFICIAL, path)
    return path


def changed(checkpoint: Path, path: Path) -> Path:
    """The checkpoint with one bias changed by 0.01."""
    parameters, metadata = load_checkpoint(checkpoint)
    parameters["output_obj_layers.bias"] = parameters["output_obj_layers.bias"] + np.float32(0.01)
    save_checkpoint(path, parameters, metadata)
    return path


@pytest.mark.parametrize("shape", [(2, 192, 192), (1, 64, 96)])
def test_seeded_images_are_those_of_the_stored_arrays(shape):
    assert seeded_images(3, *shape).tobytes() == reference_images(3, *shape).tobytes()


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_stored_arrays(checkpoint, tmp_path, suffix):
    save_checkpoint(tmp_path / f"x{suffix}", *load_checkpoint(checkpoint))
    report = verify(tmp_path / f"x{suffix}", arrays=CASE)
    assert report.passed
    assert report.skipped == []
    assert {row.name for row in report.rows} == {
        f"eval_{head}_{level}" for head in ("reg", "obj", "cls") for level in ("s16", "s32")
    } | {"eval_decoded", "deploy_s16", "deploy_s32"}
    assert max(row.relative for row in report.rows) < 1e-5
    assert "equal (tolerance 0.0001" in report.table()


def test_a_changed_weight_is_found(checkpoint, tmp_path):
    report = verify(changed(checkpoint, tmp_path / "y.ckpt"), arrays=CASE)
    assert not report.passed
    assert report.largest("output", 9)[0].name in (
        "eval_obj_s16",
        "eval_obj_s32",
        "deploy_s16",
        "deploy_s32",
    )
    assert next(row for row in report.rows if row.name == "eval_obj_s16").largest == pytest.approx(
        0.01, abs=1e-4
    )
    assert "DIFFERENT" in report.table()
    assert "<-- too large" in report.table()


def test_the_command(command, checkpoint, tmp_path):
    status, output = command("verify", checkpoint, "--arrays", CASE)
    assert status == 0 and "equal (tolerance 0.0001" in output
    status, output = command(
        "verify", changed(checkpoint, tmp_path / "y.ckpt"), "--arrays", CASE, "--log_level", "INFO"
    )
    assert status == 1 and "differences exceed the tolerances" in output


def test_photos(tmp_path, shared):
    source = shared / "weights" / "yolo_fastestv2" / "coco2017-0.241078ap-model.pth"
    if not source.exists() or not (shared / "images").is_dir():
        pytest.skip("no published weights or photos")
    convert(source, tmp_path / "x.ckpt")
    report = verify(
        tmp_path / "x.ckpt", arrays=GOLDEN / "real_weights.npz", images=shared / "images"
    )
    assert report.passed
    assert [row.kind for row in report.rows].count("input") == 5
    with pytest.raises(CheckpointError, match="was computed from photos .*pass their folder"):
        verify(tmp_path / "x.ckpt", arrays=GOLDEN / "real_weights.npz")


def test_the_original_beside_it(checkpoint, tmp_path):
    """Needs MINDYOLO_EXT_TORCH_PYTHON (a Python with PyTorch) and MINDYOLO_EXT_TORCH_REPO (a
    clone of the original).
    """
    python, repo = (
        os.environ.get("MINDYOLO_EXT_TORCH_PYTHON"),
        os.environ.get("MINDYOLO_EXT_TORCH_REPO"),
    )
    if not python or not repo:
        pytest.skip("no PyTorch or no clone of the original")
    keywords = {
        "torch_repo": repo,
        "torch_python": python,
        "source": OFFICIAL,
        "size": (64, 96),
        "batch": 2,
    }
    report = verify(checkpoint, **keywords)
    assert report.passed
    assert sum(row.kind == "layer" for row in report.rows) > 240
    assert {"output_reg_layers", "output_reg_layers#1"} <= {row.name for row in report.rows}
    report = verify(changed(checkpoint, tmp_path / "y.ckpt"), **keywords)
    assert not report.passed
    assert report.largest("layer", 1)[0].name.startswith("output_obj_layers")


def test_the_original_fails(checkpoint, tmp_path):
    keywords = {
        "torch_repo": tmp_path,
        "torch_python": sys.executable,
        "source": OFFICIAL,
        "size": (64, 64),
    }
    with pytest.raises(CheckpointError, match="failed with exit status 1:(.|\n)*No module named"):
        verify(checkpoint, **keywords)
    with pytest.raises(CheckpointError, match="could not run the original"):
        verify(checkpoint, **{**keywords, "torch_python": tmp_path / "python"})
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        verify(checkpoint, **{**keywords, "torch_repo": tmp_path / "absent"})


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({}, "got neither"),
        ({"arrays": CASE, "torch_repo": "x"}, "got both"),
        ({"torch_repo": "x"}, "needs --torch-python"),
    ],
)
def test_arguments(checkpoint, keywords, message):
    with pytest.raises(CheckpointError, match=message):
        verify(checkpoint, **keywords)


def test_stored_arrays_without_a_seed(checkpoint, tmp_path):
    np.savez(tmp_path / "case.npz", a=np.zeros(1))
    with pytest.raises(CheckpointError, match="wanted a name with the seed in it"):
        verify(checkpoint, arrays=tmp_path / "case.npz")
    np.savez(tmp_path / "seed0.npz", a=np.zeros(1))
    with pytest.raises(CheckpointError, match="the stored arrays have no eval_reg_s16"):
        verify(checkpoint, arrays=tmp_path / "seed0.npz")


def test_reports():
    report = VerifyReport("a", "b", 1e-3)
    assert not report.passed  # nothing was compared
    report.rows = [
        Difference("output", "x", (1,), 0.5, 1000.0),
        Difference("layer", "y", (1,), 9.0, 1.0),
    ]
    assert report.passed  # layers are reported, outputs decide
    report.rows.append(Difference("output", "z", (1,), float("nan"), 1.0))
    assert not report.passed
    assert report.largest("output", 1)[0].name == "z"


def test_shapes_and_unfinite_numbers():
    with pytest.raises(CheckpointError, match=r"b: x is \(2,\) in the original, \(3,\) here"):
        module._difference("output", "x", np.zeros(3), np.zeros(2), where="b")
    assert module._difference(
        "output", "x", np.array([np.nan]), np.zeros(1), where="b"
    ).largest == float("inf")

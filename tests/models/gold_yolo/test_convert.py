"""Gold-YOLO checkpoints, trained, stripped or deployed, become ours and go back, with the
original's numbers.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_same, rounded
from models.gold_yolo.files import Network, deployed, folder, reference, write_pickled
from seeded import seeded_state_dict

from mindyolo_ext.checkpoint.convert import convert, export_torch
from mindyolo_ext.checkpoint.inspect import describe
from mindyolo_ext.checkpoint.reader import read_checkpoint
from mindyolo_ext.checkpoint.store import load_checkpoint, save_checkpoint
from mindyolo_ext.checkpoint.torch_writer import write_torch_checkpoint
from mindyolo_ext.checkpoint.verify import verify
from mindyolo_ext.errors import CheckpointError

NORMS = (
    "torch.nn.modules.batchnorm.SyncBatchNorm",
    "torch.nn.modules.batchnorm.BatchNorm2d",
    "mmcv.utils.parrots_wrapper.SyncBatchNorm",
)
DEPLOYED = "deployed weights: 60 folded layers were converted to training form"


@pytest.fixture(scope="module")
def root(request) -> Path:
    """The reference folder; skipped where there is none."""
    return reference(request)


@pytest.fixture(scope="module")
def state(root) -> dict[str, np.ndarray]:
    """Seeded weights of the smallest step-2 network under the original's names."""
    return seeded_state_dict(folder(root, "gold_yolo_n", "distill"), 0)


@pytest.fixture(scope="module")
def half(state) -> dict[str, np.ndarray]:
    """The weights after a half-precision file."""
    return rounded(state)


def official(shared, suffix: str) -> Path:
    path = shared / "reference" / "gold_yolo" / f"official_format_gold_yolo_n{suffix}"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return path


@pytest.mark.parametrize(("wrap", "prefix"), [(None, ""), ("model", "module.")])
def test_there_and_back_bit_for_bit(tmp_path, state, wrap, prefix):
    write_torch_checkpoint(
        tmp_path / "x.pt", {prefix + name: array for name, array in state.items()}, wrap=wrap
    )
    report = convert(tmp_path / "x.pt", tmp_path / "x.ckpt")
    assert (
        report.model,
        report.num_classes,
        len(report.mapped),
        len(report.ignored),
        report.supplied,
        report.warnings,
    ) == ("gold_yolo_n", 80, 776, 159, {}, [])
    assert (
        report.mapped[f"{prefix * (wrap is None)}detect.reg_preds_lrtb.2.bias"]
        == "detect.reg_preds_lrtb.2.bias"
    )
    assert report.ignored["detect.proj"] == "a constant of the architecture"
    assert load_checkpoint(tmp_path / "x.ckpt")[1].architecture == {"form": "distill"}
    back = export_torch(tmp_path / "x.ckpt", tmp_path / "back.pt")
    assert set(back.supplied) == {"detect.proj", "detect.proj_conv.weight"}
    assert_same(read_checkpoint(tmp_path / "back.pt").tensors, state)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("stripped", [True, pytest.param(False, marks=pytest.mark.all_cases)])
def test_pickled_networks(tmp_path, state, half, norm, stripped, monkeypatch):
    """Training files hold raw weights, the moving average and the optimizer; stripped ones only the
    average.
    """
    raw = {
        name: np.zeros_like(array) if name.startswith("neck.") else array
        for name, array in state.items()
    }
    average = Network(state, norm, names=[f"thing {index}" for index in range(80)], nc=80)
    momentum = {
        "state": {0: {"momentum_buffer": None}},
        "param_groups": [{"lr": 0.01, "nesterov": True}],
    }
    content = (
        {"model": average, "ema": None, "updates": None, "optimizer": None, "epoch": 299}
        if stripped
        else {
            "model": Network(raw, norm),
            "ema": average,
            "updates": 7,
            "optimizer": momentum,
            "epoch": 4,
        }
    )
    with monkeypatch.context() as absent:
        write_pickled(tmp_path / "last_ckpt.pt", content, absent)
    report = convert(tmp_path / "last_ckpt.pt", tmp_path / "x.ckpt")
    assert (report.entry, report.used_ema, report.warnings) == (
        ("model", False, []) if stripped else ("ema", True, [])
    )
    metadata = load_checkpoint(tmp_path / "x.ckpt")[1]
    assert (metadata.epoch, metadata.class_names[79]) == (299 if stripped else 4, "thing 79")
    export_torch(tmp_path / "x.ckpt", tmp_path / "back.pt")
    back = read_checkpoint(tmp_path / "back.pt").tensors
    assert_same(dict(sorted(back.items())), dict(sorted(half.items())))
    if not stripped:
        assert not convert(
            tmp_path / "last_ckpt.pt", tmp_path / "x.ckpt", prefer_ema=False
        ).used_ema
        assert not load_checkpoint(tmp_path / "x.ckpt")[0]["neck.conv_1x1_n.weight"].any()


# ---- deployed weights ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "pickled"),
    [
        ("plain", False),
        ("plain", True),
        pytest.param("fuse_ab", False, marks=pytest.mark.all_cases),
        pytest.param("distill", False, marks=pytest.mark.all_cases),
    ],
)
def test_deployed_weights_give_the_same_numbers(tmp_path, root, form, pickled, monkeypatch):
    place = folder(root, "gold_yolo_n", form)
    folded = deployed(seeded_state_dict(place, 0))
    if pickled:
        with monkeypatch.context() as absent:
            write_pickled(
                tmp_path / "x.pt", {"model": Network(folded), "ema": None, "epoch": 5}, absent
            )
    else:
        write_torch_checkpoint(tmp_path / "x.pt", folded)
    report = convert(tmp_path / "x.pt", tmp_path / "x.ckpt")
    assert [warning.split(",")[0] for warning in report.warnings] == [DEPLOYED]
    assert set(report.mapped) | set(report.ignored) == set(folded)
    assert (
        report.mapped["backbone.stem.rbr_reparam.weight"] == "backbone.stem.rbr_dense.conv.weight"
    )
    assert report.mapped["detect.stems.0.conv.bias"] == "detect.stems.0.bn.beta"
    assert report.numbers == sum(folded[name].size for name in report.mapped)
    assert len(report.supplied) + len(report.mapped) == len(load_checkpoint(tmp_path / "x.ckpt")[0])
    checked = verify(tmp_path / "x.ckpt", arrays=place / "case_seed0.npz")
    assert {"eval_boxes", "eval_pred", "eval_score_sum", "deploy_boxes", "deploy_pred"} <= {
        row.name for row in checked.rows
    }
    limit = 5e-3 if pickled else 3e-6  # half precision: measured 1.3e-3
    assert max(row.relative for row in checked.rows) < limit


def test_what_was_folded_is_told(tmp_path, state):
    write_torch_checkpoint(tmp_path / "x.pt", deployed(state))
    report = convert(tmp_path / "x.pt", tmp_path / "x.ckpt")
    assert (
        report.supplied["backbone.stem.rbr_1x1.conv.weight"]
        == "was folded into its block's 3x3 kernel; zero"
    )
    assert report.supplied["detect.stems.0.bn.gamma"].startswith(
        "was folded into a kernel; the norm only adds"
    )
    assert "supplied" in report.table()
    assert json.loads(report.to_json())["supplied"] == report.supplied


def test_a_half_deployed_file_is_incomplete(tmp_path, state):
    folded = deployed(state)
    del folded["detect.stems.0.conv.bias"]
    write_torch_checkpoint(tmp_path / "x.pt", folded)
    with pytest.raises(
        CheckpointError, match=r"4 parameters of the model that the file lacks .*detect.stems.0.bn"
    ):
        convert(tmp_path / "x.pt", tmp_path / "x.ckpt")


# ---- the published format ------------------------------------------------------------------------


def test_the_published_format(tmp_path, shared):
    source = official(shared, ".pt")
    report = convert(source, tmp_path / "x.ckpt")
    assert (
        report.model,
        report.entry,
        report.used_ema,
        len(report.mapped),
        len(report.ignored),
        report.warnings,
    ) == ("gold_yolo_n", "model", False, 776, 159, [])
    metadata = load_checkpoint(tmp_path / "x.ckpt")[1]
    assert (metadata.epoch, metadata.architecture) == (299, {"form": "distill"})
    assert (len(metadata.class_names), metadata.class_names[0]) == (80, "person")
    assert metadata.input_spec.border == 4
    assert report.input.startswith("published: RGB 0..1, letterbox center, 640x640, photos of 636")
    export_torch(tmp_path / "x.ckpt", tmp_path / "back.pt")
    assert_same(read_checkpoint(tmp_path / "back.pt").tensors, read_checkpoint(source).tensors)
    assert convert(source, tmp_path / "x.ckpt", input_style="usual").warnings == [
        "--input usual contradicts the weights, which indicate published (distill head of 80 "
        "classes, as the published weights)"
    ]


def test_the_published_formats_numbers(tmp_path, shared):
    convert(official(shared, ".pt"), tmp_path / "x.ckpt")
    report = verify(tmp_path / "x.ckpt", arrays=official(shared, ".npz"))
    assert {row.name for row in report.rows} == {"eval_boxes", "eval_pred", "eval_score_sum"}
    assert max(row.relative for row in report.rows) < 2e-6
    parameters, metadata = load_checkpoint(tmp_path / "x.ckpt")
    parameters["detect.cls_preds.1.bias"] = parameters["detect.cls_preds.1.bias"] + np.float32(0.01)
    save_checkpoint(tmp_path / "y.ckpt", parameters, metadata)
    assert not verify(tmp_path / "y.ckpt", arrays=official(shared, ".npz")).passed


def test_what_the_published_file_is(shared):
    info = describe(official(shared, ".pt"))
    assert (info.family, info.model, info.num_classes, info.epoch, info.dtypes) == (
        "gold_yolo",
        "gold_yolo_n",
        80,
        299,
        {"float16": 778, "int64": 157},
    )


# ---- verify --------------------------------------------------------------------------------------


@pytest.mark.all_cases
@pytest.mark.parametrize(
    ("form", "heads"),
    [
        ("fuse_ab", ("cls", "reg")),
        pytest.param("plain", (), marks=pytest.mark.all_cases),
        ("distill", ("lrtb",)),
    ],
)
def test_stored_arrays(tmp_path, root, form, heads):
    place = folder(root, "gold_yolo_n", form)
    write_torch_checkpoint(tmp_path / "x.pt", seeded_state_dict(place, 0))
    convert(tmp_path / "x.pt", tmp_path / "x.ckpt")
    report = verify(tmp_path / "x.ckpt", arrays=place / "case_seed0.npz")
    wanted = {f"eval_{head}_p{level}" for head in heads for level in (3, 4, 5)}
    assert {row.name for row in report.rows} == wanted | {
        "eval_boxes",
        "eval_pred",
        "eval_score_sum",
        "deploy_boxes",
        "deploy_pred",
    }
    assert max(row.relative for row in report.rows) < 3e-6


@pytest.mark.parametrize("fold", [False, True])
def test_the_original_beside_it(tmp_path, state, fold, monkeypatch):
    """Needs MINDYOLO_EXT_TORCH_PYTHON (a Python with PyTorch) and
    MINDYOLO_EXT_TORCH_REPO_GOLD_YOLO (a clone).
    """
    python, repo = (
        os.environ.get("MINDYOLO_EXT_TORCH_PYTHON"),
        os.environ.get("MINDYOLO_EXT_TORCH_REPO_GOLD_YOLO"),
    )
    if not python or not repo:
        pytest.skip("no PyTorch or no clone of the original")
    with monkeypatch.context() as absent:
        content = {"model": Network(deployed(state) if fold else state), "epoch": 1}
        write_pickled(tmp_path / "x.pt", content, absent)
    convert(tmp_path / "x.pt", tmp_path / "x.ckpt")
    keywords = {
        "torch_repo": repo,
        "torch_python": python,
        "source": tmp_path / "x.pt",
        "size": (64, 128),
    }
    report = verify(tmp_path / "x.ckpt", **keywords)
    assert {row.name for row in report.rows if row.kind == "output"} == {
        "boxes",
        "scores",
        "score_sum",
    }
    assert max(row.relative for row in report.rows if row.kind == "output") < 5e-6
    if not fold:
        layers = [row.relative for row in report.rows if row.kind == "layer"]
        assert len(layers) == 555
        assert max(layers) < 1e-5

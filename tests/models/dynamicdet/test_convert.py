"""DynamicDet checkpoints, from during or after a training, become ours and go back, with the
original's numbers.
"""

import os
from collections import OrderedDict

import numpy as np
import pytest
from helpers import DEFAULT_GOLDEN, assert_same, rounded
from models.gold_yolo.files import _Tensor, write_pickled
from seeded import seeded_state_dict

from mindyolo_ext.checkpoint.convert import convert, export_torch
from mindyolo_ext.checkpoint.inspect import describe
from mindyolo_ext.checkpoint.reader import read_checkpoint
from mindyolo_ext.checkpoint.store import load_checkpoint, save_checkpoint
from mindyolo_ext.checkpoint.torch_writer import write_torch_checkpoint
from mindyolo_ext.checkpoint.verify import verify

NARROW = DEFAULT_GOLDEN / "dynamicdet" / "dy_yolov7_w0125"
STRIPPED = [
    "epoch",
    "best_fitness",
    "training_results",
    "ema",
    "updates",
    "optimizer",
    "wandb_id",
    "model",
]
ANCHORS = {f"model_{head}.54.{name}" for head in ("h", "h2") for name in ("anchors", "anchor_grid")}
DECODED = {
    f"{form}_{exit_}_decoded_s13" for form in ("eval", "deploy") for exit_ in ("easy", "hard")
}


def seeded(*, router: bool = True) -> dict[str, np.ndarray]:
    """Seeded weights under the original's names, with batch counters as all modules of a training
    have them.
    """
    return {
        name: array + np.int64(2) if array.dtype == np.int64 else array
        for name, array in seeded_state_dict(NARROW, 0).items()
        if router or not name.startswith("router.")
    }


@pytest.mark.parametrize(
    ("router", "wrap", "prefix"), [(True, None, ""), (False, "model", "module.")]
)
def test_there_and_back_bit_for_bit(tmp_path, router, wrap, prefix):
    state = seeded(router=router)
    state["model_b.0.bn.num_batches_tracked"] = np.array(7)
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
    ) == ("dy_yolov7_w0125", 80, 954 + 4 * router, 188, {}, [])
    assert (
        report.mapped[f"{prefix * (wrap is None)}model_h2.54.ia.2.implicit"] == "head2.detect.2.ia"
    )
    metadata = load_checkpoint(tmp_path / "x.ckpt")[1]
    assert (metadata.architecture["router"], metadata.architecture["anchors"][8]) == (
        router,
        [459, 401],
    )
    back = export_torch(tmp_path / "x.ckpt", tmp_path / "back.pt")
    assert set(back.supplied) == ANCHORS
    assert back.mapped["backbone2.links.3.bias"] == "model_b2.3.conv.bias"
    checkpoint = read_checkpoint(tmp_path / "back.pt")
    assert_same(checkpoint.tensors, state)
    assert (checkpoint.entry, checkpoint.entries, checkpoint.extras) == (
        "model",
        STRIPPED,
        {
            "epoch": -1,
            "best_fitness": 0.0,
            "training_results": None,
            "updates": None,
            "wandb_id": None,
        },
    )


def test_bare_and_in_half_precision(tmp_path):
    write_torch_checkpoint(tmp_path / "x.pt", seeded())
    convert(tmp_path / "x.pt", tmp_path / "x.ckpt")
    export_torch(tmp_path / "x.ckpt", tmp_path / "back.pt", wrap="", half=True)
    checkpoint = read_checkpoint(tmp_path / "back.pt")
    assert (checkpoint.entry, checkpoint.stored_dtypes) == ("", {"float16": 962, "int64": 184})
    assert_same(checkpoint.tensors, rounded(seeded()))


@pytest.mark.parametrize("stripped", [True, False])
def test_files_of_a_training(tmp_path, stripped, monkeypatch):
    """During a training, the file holds raw weights, the moving average and the optimizer;
    afterwards only the average stays.
    """
    state = seeded()

    def saved(tensors):
        result = OrderedDict(
            (name, _Tensor(np.array(array, np.float16 if array.dtype.kind == "f" else array.dtype)))
            for name, array in tensors.items()
        )
        result._metadata = OrderedDict({"": {"version": 1}, "model_b.0.bn": {"version": 2}})
        return result

    raw = {
        name: np.zeros_like(array) if name.startswith("router.") else array
        for name, array in state.items()
    }
    optimizer = {
        "state": {0: {"momentum_buffer": _Tensor(np.zeros(3, np.float16))}},
        "param_groups": [{"lr": 0.01, "momentum": np.float64(0.937), "params": [0]}],
    }
    content = {
        "epoch": 4,
        "best_fitness": np.array([0.25]),
        "training_results": "0/1 ...",
        "model": saved(raw),
        "ema": saved(state),
        "updates": 7,
        "optimizer": optimizer,
        "wandb_id": None,
    }
    if stripped:
        content.update(
            dict.fromkeys(("training_results", "ema", "updates", "optimizer")),
            epoch=-1,
            model=saved(state),
        )
    with monkeypatch.context() as absent:
        write_pickled(tmp_path / "last.pt", content, absent)
    report = convert(tmp_path / "last.pt", tmp_path / "x.ckpt")
    assert (report.entry, report.used_ema, report.warnings) == (
        ("model", False, []) if stripped else ("ema", True, [])
    )
    assert load_checkpoint(tmp_path / "x.ckpt")[1].epoch == (None if stripped else 4)
    export_torch(tmp_path / "x.ckpt", tmp_path / "back.pt")
    assert_same(read_checkpoint(tmp_path / "back.pt").tensors, rounded(state))
    if not stripped:
        assert not convert(tmp_path / "last.pt", tmp_path / "x.ckpt", prefer_ema=False).used_ema
        assert not load_checkpoint(tmp_path / "x.ckpt")[0]["router.layer1.weight"].any()


def test_automatic_anchors_are_told_and_kept(tmp_path):
    state = {
        name: array * np.float32(1.5) if name in ANCHORS and name.startswith("model_h2.") else array
        for name, array in seeded().items()
    }
    write_torch_checkpoint(tmp_path / "x.pt", state)
    report = convert(tmp_path / "x.pt", tmp_path / "x.ckpt")
    assert [warning.split(" (")[0] for warning in report.warnings] == [
        "the two heads have different anchors"
    ]
    assert load_checkpoint(tmp_path / "x.ckpt")[1].architecture["anchors"][0] == [18, 24]
    export_torch(tmp_path / "x.ckpt", tmp_path / "back.pt")
    back = read_checkpoint(tmp_path / "back.pt").tensors
    assert all(
        np.array_equal(back[name], state[name.replace("model_h.", "model_h2.")]) for name in ANCHORS
    )


# ---- the numbers ---------------------------------------------------------------------------------


def test_stored_arrays(tmp_path):
    write_torch_checkpoint(tmp_path / "x.pt", seeded())
    convert(tmp_path / "x.pt", tmp_path / "x.ckpt")
    report = verify(tmp_path / "x.ckpt", arrays=NARROW / "case_seed0.npz")
    raw = {
        f"eval_{exit_}_raw_{level}"
        for exit_ in ("easy", "hard")
        for level in ("l0_s13", "l1_s13", "l2")
    }
    assert {row.name for row in report.rows} == DECODED | raw | {"eval_score", "deploy_score"}
    assert max(row.relative for row in report.rows) < 2e-6  # measured 5.8e-7
    parameters, metadata = load_checkpoint(tmp_path / "x.ckpt")
    parameters["head.detect.1.im"] = parameters["head.detect.1.im"] * np.float32(1.01)
    save_checkpoint(tmp_path / "y.ckpt", parameters, metadata)
    changed = verify(tmp_path / "y.ckpt", arrays=NARROW / "case_seed0.npz")
    assert not changed.passed
    assert {row.name for row in changed.rows if row.relative > changed.tolerance} >= {
        "eval_easy_raw_l1_s13"
    }
    assert all(row.relative < 2e-6 for row in changed.rows if "_hard_" in row.name)


def test_the_published_format(tmp_path, shared):
    folder = shared / "reference" / "dynamicdet"
    source = folder / "official_format_dy_yolov7_w0125.pt"
    if not source.is_file():
        pytest.skip(f"no {source}")
    info = describe(source)
    assert (info.family, info.model, info.num_classes, info.epoch, info.dtypes) == (
        "dynamicdet",
        "dy_yolov7_w0125",
        80,
        None,
        {"float16": 962, "int64": 184},
    )
    report = convert(source, tmp_path / "x.ckpt")
    assert (report.entry, report.used_ema, len(report.mapped), report.warnings) == (
        "model",
        False,
        958,
        [],
    )
    spec = load_checkpoint(tmp_path / "x.ckpt")[1].input_spec
    assert (spec.size, spec.color, spec.scale) == ((640, 640), "rgb", 1 / 255)
    export_torch(tmp_path / "x.ckpt", tmp_path / "back.pt")
    assert_same(read_checkpoint(tmp_path / "back.pt").tensors, read_checkpoint(source).tensors)
    checked = verify(tmp_path / "x.ckpt", arrays=folder / "official_format_case.npz")
    assert {row.name for row in checked.rows} == DECODED | {"eval_score", "deploy_score"}
    assert max(row.relative for row in checked.rows) < 2e-6


@pytest.mark.parametrize("router", [True, False])
def test_the_original_beside_it(tmp_path, router):
    """Needs MINDYOLO_EXT_TORCH_PYTHON (a Python with PyTorch) and
    MINDYOLO_EXT_TORCH_REPO_DYNAMICDET (a clone).

    The original loads the written file in strict mode.
    """
    python, repo = (
        os.environ.get("MINDYOLO_EXT_TORCH_PYTHON"),
        os.environ.get("MINDYOLO_EXT_TORCH_REPO_DYNAMICDET"),
    )
    if not python or not repo:
        pytest.skip("no PyTorch or no clone of the original")
    write_torch_checkpoint(tmp_path / "x.pt", seeded(router=router))
    convert(tmp_path / "x.pt", tmp_path / "x.ckpt")
    export_torch(tmp_path / "x.ckpt", tmp_path / "back.pt")
    convert(tmp_path / "back.pt", tmp_path / "x.ckpt")
    report = verify(
        tmp_path / "x.ckpt",
        torch_repo=repo,
        torch_python=python,
        source=tmp_path / "back.pt",
        size=(64, 128),
        batch=2,
    )
    assert report.warnings == []
    assert {row.name for row in report.rows if row.kind == "output"} == {
        "easy_boxes",
        "easy_probabilities",
        "hard_boxes",
        "hard_probabilities",
        *["score"] * router,
    }
    assert max(row.relative for row in report.rows if row.kind == "output") < 2e-6
    layers = [row.relative for row in report.rows if row.kind == "layer"]
    assert len(layers) == 738 + 2 * router
    assert max(layers) < 2e-5

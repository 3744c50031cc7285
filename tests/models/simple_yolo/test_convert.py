"""Simple YOLO checkpoints become ours and go back, torchvision's ResNets initialize a backbone; the
original's numbers.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from models.simple_yolo.files import COUNTER, detector, filled, numbers, torchvision_resnet
from seeded import seeded_tensor

from mindyolo_ext.checkpoint.convert import convert, export_torch
from mindyolo_ext.checkpoint.inspect import describe
from mindyolo_ext.checkpoint.reader import read_checkpoint
from mindyolo_ext.checkpoint.store import load_checkpoint
from mindyolo_ext.checkpoint.torch_writer import write_torch_checkpoint
from mindyolo_ext.checkpoint.verify import verify
from mindyolo_ext.errors import CheckpointError

DATA = Path(__file__).parent / "data"
LAST = DATA / "simple_yolo_last.pth"  # both written by make_simple_yolo.py there
LEGACY = DATA / "torchvision_legacy.pth"
SHARE = 1 / 64
BESIDE = {"cur_epoch": 7, "best_score": 0.5, "optimizer": None, "scheduler": None}
ASSUMED = "the file does not say how it was trained; took assignment nearby_grid and COCO's anchors"


@pytest.fixture
def best(tmp_path) -> Path:
    """A file like the original's ``best.pth``, of a narrow ResNet-18 with 2 classes."""
    write_torch_checkpoint(
        tmp_path / "best.pth", filled(detector(18, SHARE, 2)), wrap="state_dict", beside=BESIDE
    )
    return tmp_path / "best.pth"


def test_there_and_back_bit_for_bit(tmp_path, best):
    report = convert(best, tmp_path / "x.ckpt")
    assert (
        report.model,
        report.num_classes,
        report.entry,
        len(report.mapped),
        len(report.ignored),
    ) == ("simple_yolo_resnet18", 2, "state_dict", 180, 35)
    assert [text.partition(". With")[0] for text in report.warnings] == [ASSUMED]
    metadata = load_checkpoint(tmp_path / "x.ckpt")[1]
    assert metadata.epoch == 7
    architecture = metadata.architecture
    assert (architecture["channel_sparsity"], architecture["assignment"], architecture["act"]) == (
        SHARE,
        "nearby_grid",
        "relu",
    )
    assert len(architecture["anchors"]) == 9
    export_torch(tmp_path / "x.ckpt", tmp_path / "back.pth")
    back, wanted = read_checkpoint(tmp_path / "back.pth"), read_checkpoint(best)
    assert back.entries == ["cur_epoch", "best_score", "optimizer", "scheduler", "state_dict"]
    assert list(back.tensors) == list(wanted.tensors)
    for name, array in wanted.tensors.items():
        assert (back.tensors[name].dtype, back.tensors[name].shape) == (array.dtype, array.shape), (
            name
        )
        assert back.tensors[name].tobytes() == array.tobytes(), name


def test_parts_of_wider_storages_are_read_by_their_strides(tmp_path):
    """The original writes such files during a training."""
    report = convert(LAST, tmp_path / "x.ckpt")
    parameters, metadata = load_checkpoint(tmp_path / "x.ckpt")
    assert (metadata.epoch, report.num_classes, len(parameters)) == (4, 2, 180)
    shapes = detector(18, SHARE, 2)
    for index, (name, shape) in enumerate(shapes.items()):
        if not name.endswith(COUNTER):
            wider = (
                shape[0] + 1,
                *(
                    shape[1:]
                    if name == "backbone.conv1.weight" or len(shape) < 4
                    else (shape[1] + 1, *shape[2:])
                ),
            )
            wanted = numbers(wider, index)[tuple(slice(size) for size in shape)]
            np.testing.assert_array_equal(parameters[report.mapped[name]], wanted, err_msg=name)


def test_what_the_user_says_goes_into_the_model(tmp_path, best, command):
    status, output = command(
        "convert",
        best,
        tmp_path / "x.ckpt",
        "--model_keyword",
        "assignment=single_grid",
        "--model_keyword",
        "act=silu",
        "--anchors",
        ",".join(str(n) for n in range(1, 19)),
    )
    assert status == 0, output
    assert "warning" not in output
    architecture = load_checkpoint(tmp_path / "x.ckpt")[1].architecture
    assert (architecture["assignment"], architecture["act"], architecture["anchors"][8]) == (
        "single_grid",
        "silu",
        [17.0, 18.0],
    )
    status, output = command("convert", best, tmp_path / "x.ckpt", "--anchors", ",".join("1" * 18))
    assert "took assignment nearby_grid. With" in " ".join(output.split())
    status, output = command("convert", best, tmp_path / "x.ckpt")
    assert ASSUMED in " ".join(output.split())


@pytest.mark.parametrize(
    ("keyword", "status", "message"),
    [
        ("assignment", 2, "wanted NAME=VALUE, got 'assignment'"),
        ("=3", 2, "wanted NAME=VALUE, got '=3'"),
        ("act=[", 2, "the value is not valid YAML"),
        ("assignmemt=all_grid", 1, "unknown keyword 'assignmemt', did you mean assignment?"),
        ("channel_sparsity=wide", 1, "a keyword among channel_sparsity does not fit"),
        ("assignment=some_grid", 1, "assignment must be one of"),
        ("channel_sparsity=0.0625", 1, "shapes that differ"),
        ("num_classes=3", 1, "3 shapes that differ"),
    ],
)
def test_keywords_that_do_not_fit(tmp_path, best, command, keyword, status, message):
    came, output = command("convert", best, tmp_path / "x.ckpt", "--model_keyword", keyword)
    assert came == status, output
    assert message in output
    assert not (tmp_path / "x.ckpt").exists()


def test_two_anchors_per_level(tmp_path):
    write_torch_checkpoint(tmp_path / "x.pth", filled(detector(18, SHARE, 7, per_level=2)))
    report = convert(tmp_path / "x.pth", tmp_path / "x.ckpt", anchors=range(1, 13))
    metadata = load_checkpoint(tmp_path / "x.ckpt")[1]
    assert (report.num_classes, metadata.num_classes, len(metadata.architecture["anchors"])) == (
        7,
        7,
        6,
    )


# ---- torchvision ---------------------------------------------------------------------------------


def test_a_model_starts_from_the_first_channels_of_a_torchvision_resnet(tmp_path, command):
    from mindyolo_ext.engine.build import start_from
    from mindyolo_ext.models.registry import create_model

    full = filled(torchvision_resnet(18, classes=10))
    write_torch_checkpoint(tmp_path / "resnet18.pth", full)
    status, output = command(
        "convert",
        tmp_path / "resnet18.pth",
        tmp_path / "start.ckpt",
        "--model_keyword",
        "channel_sparsity=0.0625",
    )
    assert status == 0, output
    assert "backbone only" in output
    assert "2 x classifies whole images; the detector has no such layer" in output
    assert "warning" not in output
    assert describe(tmp_path / "start.ckpt").part == "backbone"
    model = create_model("simple_yolo_resnet18", num_classes=2, channel_sparsity=0.0625)
    fresh = start_from(model, tmp_path / "start.ckpt")
    ours = {name: parameter.asnumpy() for name, parameter in model.parameters_and_names()}
    assert set(fresh) == {name for name in ours if not name.startswith("backbone.")}
    np.testing.assert_array_equal(ours["backbone.conv1.weight"], full["conv1.weight"][:4])
    np.testing.assert_array_equal(
        ours["backbone.layer2.0.conv1.weight"], full["layer2.0.conv1.weight"][:8, :4]
    )
    np.testing.assert_array_equal(
        ours["backbone.layer2.0.downsample.0.weight"], full["layer2.0.downsample.0.weight"][:8, :4]
    )
    np.testing.assert_array_equal(
        ours["backbone.layer4.1.bn2.moving_variance"], full["layer4.1.bn2.running_var"][:32]
    )
    other = create_model("simple_yolo_resnet18", num_classes=2, channel_sparsity=0.125)
    with pytest.raises(
        ValueError,
        match=r"none of its 100 tensors fits SimpleYOLO; backbone.conv1.weight is "
        r"\(4, 3, 7, 7\), wanted \(8, 3, 7, 7\): another width\?",
    ):
        start_from(other, tmp_path / "start.ckpt")


def test_an_old_torchvision_file(tmp_path):
    report = convert(LEGACY, tmp_path / "start.ckpt")
    assert (report.source_format, report.part, len(report.mapped), set(report.ignored)) == (
        "torch-legacy",
        "backbone",
        100,
        {"fc.weight", "fc.bias"},
    )
    assert report.warnings[0].startswith(
        "a backbone of channel_sparsity 0.015625, as in the file; only a model of that"
    )
    export_torch(tmp_path / "start.ckpt", tmp_path / "back.pth")
    back = read_checkpoint(tmp_path / "back.pth")
    wanted = filled(torchvision_resnet(18, SHARE, classes=10, counters=False))
    assert back.entry == ""  # a bare state dict, as torchvision's
    assert {name for name in back.tensors if not name.endswith(COUNTER)} == set(wanted) - {
        "fc.weight",
        "fc.bias",
    }
    for name in set(wanted) & set(back.tensors):
        np.testing.assert_array_equal(back.tensors[name], wanted[name], err_msg=name)
    with pytest.raises(CheckpointError, match="holds only the backbone, wanted a whole model"):
        verify(tmp_path / "start.ckpt", arrays="x.npz")


# ---- the original's numbers ----------------------------------------------------------------------


def official(shared) -> Path:
    path = shared / "reference" / "simple_yolo" / "official_format_resnet18_025.pth"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return path


def test_the_original_format_and_its_numbers(tmp_path, shared):
    source = official(shared)
    report = convert(source, tmp_path / "x.ckpt")
    assert (report.model, report.num_classes, len(report.mapped), report.numbers) == (
        "simple_yolo_resnet18",
        20,
        180,
        888_208,
    )
    assert load_checkpoint(tmp_path / "x.ckpt")[1].architecture["channel_sparsity"] == 0.25
    export_torch(tmp_path / "x.ckpt", tmp_path / "back.pth")
    back, wanted = read_checkpoint(tmp_path / "back.pth").tensors, read_checkpoint(source).tensors
    assert {name: array.tobytes() for name, array in back.items()} == {
        name: array.tobytes() for name, array in wanted.items()
    }
    arrays = source.parent / "resnet18_025" / "case_seed0.npz"
    checked = verify(tmp_path / "x.ckpt", arrays=arrays)
    assert {row.name for row in checked.rows} == {"eval_l0", "eval_l1", "eval_l2", "eval_decoded"}
    assert max(row.relative for row in checked.rows) < 5e-6
    convert(source, tmp_path / "y.ckpt", model_keywords={"assignment": "single_grid"})
    assert not verify(tmp_path / "y.ckpt", arrays=arrays).passed


@pytest.mark.parametrize("backbone", ["darknet", 18])
def test_the_original_beside_it(tmp_path, backbone):
    """Needs MINDYOLO_EXT_TORCH_PYTHON (PyTorch, for the ResNet torchvision) and
    MINDYOLO_EXT_TORCH_REPO_SIMPLE_YOLO.
    """
    python, repo = (
        os.environ.get("MINDYOLO_EXT_TORCH_PYTHON"),
        os.environ.get("MINDYOLO_EXT_TORCH_REPO_SIMPLE_YOLO"),
    )
    if not python or not repo:
        pytest.skip("no PyTorch or no clone of the original")
    state = {
        name: np.zeros(shape, np.int64)
        if name.endswith(COUNTER)
        else seeded_tensor(name, shape, 0, 0.9)
        for name, shape in detector(backbone, 0.125, 2).items()
    }
    write_torch_checkpoint(tmp_path / "x.pth", state, wrap="state_dict", beside=BESIDE)
    convert(tmp_path / "x.pth", tmp_path / "x.ckpt", model_keywords={"assignment": "all_grid"})
    report = verify(
        tmp_path / "x.ckpt",
        torch_repo=repo,
        torch_python=python,
        source=tmp_path / "x.pth",
        size=(64, 96),
    )
    assert {row.name for row in report.rows if row.kind == "output"} == {
        "l0",
        "l1",
        "l2",
        "boxes",
        "probabilities",
    }
    assert max(row.relative for row in report.rows if row.kind == "output") < 1e-5

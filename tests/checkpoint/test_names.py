"""Translation of leaf names, recognition, and tables that are complete in both directions."""

import numpy as np
import pytest

from mindyolo_ext.checkpoint.names import (
    Ignored,
    NamesTable,
    Recognition,
    find_norms,
    leaf_to_mindspore,
    leaf_to_torch,
    map_tensors,
    source_names,
    to_source_tensors,
)
from mindyolo_ext.checkpoint.tables import recognize, table_of, tables
from mindyolo_ext.errors import CheckpointError

NORMS = frozenset({"a.bn"})


@pytest.mark.parametrize(
    ("torch_name", "our_name"),
    [
        ("a.bn.weight", "a.bn.gamma"),
        ("a.bn.bias", "a.bn.beta"),
        ("a.bn.running_mean", "a.bn.moving_mean"),
        ("a.bn.running_var", "a.bn.moving_variance"),
        ("a.conv.weight", "a.conv.weight"),
        ("a.conv.bias", "a.conv.bias"),
        ("anchor_grid", "anchor_grid"),
        ("weight", "weight"),
    ],
)
def test_leaves_both_ways(torch_name, our_name):
    assert leaf_to_mindspore(torch_name, NORMS) == our_name
    assert leaf_to_torch(our_name) == torch_name


@pytest.mark.parametrize(
    "name", ["a.bn.num_batches_tracked", "moments.a.weight", "state.raw.a", "global_step"]
)
def test_ignored_with_a_reason(name):
    assert isinstance(leaf_to_mindspore(name, NORMS), Ignored)
    assert leaf_to_mindspore(name, NORMS).reason


def test_our_own_names_pass():
    assert leaf_to_mindspore("a.bn.gamma", NORMS) == "a.bn.gamma"
    assert find_norms(["a.bn.running_mean", "b.bn.moving_mean", "c.weight"]) == {"a.bn", "b.bn"}


class ToyNames(NamesTable):
    family = "toy"

    def recognize(self, tensors):
        return [Recognition("toy", None)] if "toy" in tensors else []


TARGETS = {
    "conv.weight": np.zeros((2, 3), np.float32),
    "bn.gamma": np.zeros(2, np.float32),
    "bn.beta": np.zeros(2, np.float32),
    "bn.moving_mean": np.zeros(2, np.float32),
    "bn.moving_variance": np.zeros(2, np.float32),
}


def source(**changes):
    tensors = {
        "conv.weight": np.ones((2, 3), np.float32),
        "bn.weight": np.ones(2, np.float32),
        "bn.bias": np.full(2, 2, np.float32),
        "bn.running_mean": np.full(2, 3, np.float32),
        "bn.running_var": np.full(2, 4, np.float32),
        "bn.num_batches_tracked": np.array(17),
    }
    tensors.update({name.replace("__", "."): value for name, value in changes.items()})
    return {name: value for name, value in tensors.items() if value is not None}


def mapped(tensors, **keywords):
    return map_tensors(
        ToyNames(), Recognition("toy", None, **keywords), tensors, TARGETS, where="x.pth"
    )


def test_every_tensor_is_used_or_ignored_and_the_way_back_is_exact():
    result = mapped(source())
    assert set(result.values) == set(TARGETS)
    assert set(result.sources) | set(result.ignored) == set(source())
    assert result.counters == {"bn": 17}
    back = to_source_tensors(ToyNames(), result.values, result.counters)
    assert {name: array.tolist() for name, array in back.items()} == {
        name: array.tolist() for name, array in source().items()
    }
    assert back["bn.num_batches_tracked"].dtype == np.int64


class NumberedNames(ToyNames):
    """An original that numbers its modules in another order than ours and stores a constant."""

    def renames(self, model):
        return {"m.0": "conv", "m.1.one": "bn", "m.1": "bn.inner"} if model == "toy" else {}

    def constants(self, architecture=None):
        return {"bn.inner.grid": np.asarray(architecture["grid"])} if architecture else {}


def test_numbered_modules_there_and_back_in_their_order():
    table = NumberedNames()
    found = Recognition("toy", None, renames=table.renames("toy"))
    tensors = {
        f"m.0{name[4:]}" if name.startswith("conv") else f"m.1.one{name[2:]}": array
        for name, array in source().items()
    }
    result = map_tensors(table, found, tensors, TARGETS, where="x.pth")
    assert (set(result.values), result.counters) == (set(TARGETS), {"bn": 17})
    shuffled = dict(reversed(result.values.items()))
    back = to_source_tensors(
        table, shuffled, result.counters, model="toy", architecture={"grid": [3]}
    )
    assert [name.rpartition(".")[0] for name in back] == ["m.0"] + ["m.1.one"] * 5 + ["m.1"]
    assert {name: array.tolist() for name, array in back.items()} == {
        **{name: array.tolist() for name, array in tensors.items()},
        "m.1.grid": [3],
    }
    assert source_names(table, ["bn.gamma", "other.bias"], "toy") == {
        "bn.gamma": "m.1.one.weight",
        "other.bias": "other.bias",
    }
    assert set(to_source_tensors(table, result.values)) == set(source())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"other__weight": np.zeros(3)},
            r"1 unknown tensors \(toy\): other.weight \(3,\)",
        ),
        ({"bn__bias": None}, r"1 parameters of the model that the file lacks \(toy\): bn.beta"),
        (
            {"conv__weight": np.zeros((3, 2))},
            r"conv.weight is \(3, 2\), conv.weight is \(2, 3\)",
        ),
        ({"bn__gamma": np.zeros(2)}, "1 parameters filled twice .*fill bn.gamma"),
    ],
)
def test_what_does_not_fit(changes, message):
    with pytest.raises(CheckpointError, match="x.pth: " if message.startswith("x") else message):
        mapped(source(**changes))


def test_many_offenders_are_counted_not_listed():
    extra = {f"extra{index}": np.zeros(1) for index in range(9)}
    with pytest.raises(CheckpointError, match=r"9 unknown tensors .*extra4 \(1,\) and 4 more"):
        mapped(source(**extra))


def test_a_part_fills_a_part():
    result = mapped({"weight": np.ones((2, 3), np.float32)}, prefix="conv.", part="conv")
    assert list(result.values) == ["conv.weight"]
    assert sorted(result.unfilled) == sorted(set(TARGETS) - {"conv.weight"})


def test_other_number_types_are_reported():
    result = mapped(source(conv__weight=np.ones((2, 3), np.float64)))
    assert result.values["conv.weight"].dtype == np.float32
    assert result.warnings == ["1 tensors changed their number type: conv.weight"]


def yolo_fastestv2(classes=80, anchors=3):
    names = [
        f"{prefix}{name}"
        for prefix in ("backbone.",)
        for name in (
            "first_conv.0.weight",
            "stage2.0.branch_proj.0.weight",
            "stage3.7.branch_main.0.weight",
            "stage4.3.branch_main.5.weight",
        )
    ] + ["fpn.conv1x1_2.0.weight", "fpn.cls_head_3.block.0.weight"]
    tensors = {name: np.zeros(1) for name in names}
    heads = {"reg": 4 * anchors, "obj": anchors, "cls": classes}
    return {
        **tensors,
        **{f"output_{name}_layers.weight": np.zeros((n, 72, 1, 1)) for name, n in heads.items()},
    }


def test_recognizes_yolo_fastestv2():
    table, found = recognize(yolo_fastestv2(7), where="x.pth")
    assert (table.family, found.model, found.num_classes, found.part) == (
        "yolo_fastestv2",
        "yolo_fastestv2",
        7,
        "",
    )
    backbone = {
        name.removeprefix("backbone."): array
        for name, array in yolo_fastestv2().items()
        if name.startswith("backbone.")
    }
    _, found = recognize(backbone, where="x.pth")
    assert (found.num_classes, found.prefix, found.part) == (None, "backbone.", "backbone")


def test_unknown_weights_and_wrong_names():
    with pytest.raises(
        CheckpointError, match=r"x\.pth: not weights of a known family \(1 tensors: a \(2,\)"
    ):
        recognize({"a": np.zeros(2)}, where="x.pth")
    with pytest.raises(CheckpointError, match="holds weights of yolo_fastestv2, not of yolox_s"):
        recognize(yolo_fastestv2(), where="x.pth", model="yolox_s")


@pytest.mark.parametrize(
    ("count", "anchors", "message"),
    [
        (5, None, "the head has 5 anchors per level"),
        (3, (1.0,) * 10, "10 anchor numbers, wanted width and height of 3 anchors"),
        (3, (1.0,) * 8, "8 anchor numbers"),
    ],
)
def test_anchors_that_do_not_fit(count, anchors, message):
    with pytest.raises(CheckpointError, match=message):
        table_of("yolo_fastestv2").builder_keywords(yolo_fastestv2(anchors=count), anchors)


def test_anchors_become_pairs():
    keywords = table_of("yolo_fastestv2").builder_keywords(yolo_fastestv2(anchors=1), (1, 2, 3, 4))
    assert keywords == {"anchors": [[1.0, 2.0], [3.0, 4.0]]}


def test_tables_by_family():
    assert "yolo_fastestv2" in tables()
    with pytest.raises(ValueError, match="unknown family 'x'"):
        table_of("x")
    with pytest.raises(CheckpointError, match="its models have none"):
        ToyNames().builder_keywords({}, (1.0, 2.0))

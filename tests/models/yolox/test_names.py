"""YOLOX names: all seven scales under the original's and MindYOLO's names, and the input derived
from weights.
"""

import json

import numpy as np
import pytest
from helpers import DEFAULT_GOLDEN, quick_cases

from mindyolo_ext.checkpoint.names import Ignored, Recognition, find_norms, map_tensors, renamed
from mindyolo_ext.checkpoint.tables import recognize, table_of
from mindyolo_ext.errors import CheckpointError
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.yolox.names import MINDYOLO_NAMES

GOLDEN = DEFAULT_GOLDEN / "yolox"
VARIANTS = (
    "yolox_nano",
    "yolox_tiny",
    "yolox_s",
    "yolox_m",
    "yolox_l",
    "yolox_x",
    "yolox_darknet53",
)
QUICK_VARIANTS = ("yolox_nano", "yolox_darknet53")
TABLE = table_of("yolox")
STEM = "backbone.backbone.stem.conv"


def listed(variant: str, file: str):
    return json.loads((GOLDEN / variant / file).read_text(encoding="utf-8"))


def tensors(variant: str, file: str, *, prefix: str = "") -> dict[str, np.ndarray]:
    """Tensors of the right names, shapes and types, without memory."""
    return {
        prefix + name: np.broadcast_to(np.zeros((), dtype), shape)
        for name, shape, dtype in listed(variant, file)
    }


def parameters(variant: str) -> dict[str, np.ndarray]:
    """Our parameters, without memory."""
    from mindyolo_ext.backend.parameters import named_parameters
    from mindyolo_ext.models.registry import create_model

    return {
        name: np.broadcast_to(np.zeros((), np.float32), parameter.shape)
        for name, parameter in named_parameters(create_model(variant)).items()
    }


@pytest.mark.parametrize("variant", quick_cases(VARIANTS, QUICK_VARIANTS))
def test_both_programs_names_fill_every_parameter_both_ways(variant):
    ours = parameters(variant)
    official, theirs = tensors(variant, "keys.json"), tensors(variant, "mindyolo_keys.json")
    _, found = recognize(official, where="x.pth")
    result = map_tensors(TABLE, found, official, ours, where="x.pth")
    assert (found.model, found.num_classes, result.unfilled, result.warnings) == (
        variant,
        80,
        [],
        [],
    )
    assert all(name.endswith("num_batches_tracked") for name in result.ignored)
    assert {TABLE.to_source(name) for name in ours} == set(official) - set(result.ignored)
    assert all(TABLE.to_source(target) == name for name, target in result.sources.items())
    _, found = recognize(theirs, where="x.ckpt")
    numbered = map_tensors(TABLE, found, theirs, ours, where="x.ckpt")
    assert (found.model, found.num_classes, numbered.unfilled, numbered.ignored) == (
        variant,
        80,
        [],
        {},
    )
    assert {TABLE.to_source(target): name for name, target in numbered.sources.items()} == listed(
        variant, "mindyolo_map.json"
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_order_of_the_original(variant):
    names = [TABLE.to_source(name) for name in parameters(variant)]
    trainable = [name for name in names if not name.endswith(("running_mean", "running_var"))]
    assert trainable == listed(variant, "grad_names.json")


@pytest.mark.parametrize("variant", VARIANTS)
def test_mindyolos_names_and_back(variant):
    renames = MINDYOLO_NAMES["darknet53" if variant == "yolox_darknet53" else "csp"]
    back = {original: numbered for numbered, original in renames.items()}
    assert len(back) == len(renames)
    official = {
        TABLE.to_target(name, find_norms(n for n, *_ in listed(variant, "keys.json")))
        for name, *_ in listed(variant, "keys.json")
        if not name.endswith("num_batches_tracked")
    }
    theirs = [name for name, *_ in listed(variant, "mindyolo_keys.json")]
    assert {renamed(name, renames) for name in theirs} == official
    assert [renamed(renamed(name, renames), back) for name in theirs] == theirs


def test_other_class_counts_and_names_of_our_own():
    changed = {
        name: np.zeros((3, *array.shape[1:])) if ".cls_preds." in name else array
        for name, array in tensors("yolox_tiny", "keys.json").items()
    }
    assert recognize(changed, where="x.pth")[1].num_classes == 3
    own = {
        TABLE.to_target(name, find_norms(changed)): array
        for name, array in changed.items()
        if not name.endswith("num_batches_tracked")
    }
    assert recognize(own, where="x.ckpt")[1] == Recognition("yolox_tiny", 3)


def test_other_sizes_are_told():
    changed = tensors("yolox_nano", "keys.json")
    changed[f"{STEM}.conv.weight"] = np.zeros((40, 12, 3, 3))
    with pytest.raises(
        CheckpointError,
        match=r"40 channels in the stem, 3 bottlenecks in dark3, depthwise; wanted one "
        r"of yolox_nano 16, 3, depthwise; yolox_tiny 24, 3;",
    ):
        recognize(changed, where="x.pth")


@pytest.mark.parametrize(
    "names",
    [
        {"model.model.0.conv.weight": np.zeros((32, 3, 3, 3))},
        {f"{STEM}.conv.weight": np.zeros((16, 12, 3, 3))},
    ],
)
def test_part_of_the_names_is_another_family(names):
    assert TABLE.recognize(names) == []


@pytest.mark.parametrize(
    ("name", "wanted"), [("a.b.c", "x.c"), ("a.bb.c", "y.bb.c"), ("b.a", "b.a"), ("a", "y")]
)
def test_renamed_takes_the_longest_beginning_up_to_a_dot(name, wanted):
    assert renamed(name, {"a": "y", "a.b": "x"}) == wanted


@pytest.mark.parametrize(
    "name", ["moments.model.model.0.conv.conv.weight", "updates", "learning_rate"]
)
def test_state_of_mindyolos_training_is_ignored(name):
    assert isinstance(TABLE.to_target(name, frozenset()), Ignored)


# ---- input ---------------------------------------------------------------------------------------


def first_layer(variance: float, shift: float = 0.1, stem: str = STEM) -> dict[str, np.ndarray]:
    """A stem whose kernels, of any size, expect pixels of ``variance``."""
    random = np.random.RandomState(0)
    kernels = (
        random.standard_normal((16, 12, 3, 3)) * np.geomspace(0.01, 10, 16)[:, None, None, None]
    )
    squares = (kernels**2).sum((1, 2, 3))
    return {
        f"{stem}.conv.weight": kernels,
        f"{stem}.bn.weight": np.ones(16),
        f"{stem}.bn.bias": np.full(16, shift),
        f"{stem}.bn.running_mean": np.zeros(16),
        f"{stem}.bn.running_var": variance * squares,
    }


@pytest.mark.parametrize(
    ("variance", "style"),
    [
        (3400.0, "official"),
        (1.1, "legacy"),
        (0.06, "mindyolo"),
        (100.0, ""),
        (0.35, ""),
        (1e9, ""),
        (np.nan, ""),
    ],
)
def test_the_first_layer_tells_the_input(variance, style):
    evidence = TABLE.input_evidence(Recognition("yolox_nano", 80), first_layer(variance))
    assert evidence.style == style
    assert f"variance {variance:.4g}" in evidence.reason
    renamed_leaves = {
        TABLE.to_target(name, frozenset({f"{STEM}.bn"})): array
        for name, array in first_layer(variance).items()
    }
    assert TABLE.input_evidence(Recognition("yolox_nano", 80), renamed_leaves) == evidence


def test_darknet_has_another_first_layer():
    layer = first_layer(3000.0, stem="backbone.backbone.stem.0")
    assert TABLE.input_evidence(Recognition("yolox_darknet53", 80), layer).style == "official"
    assert TABLE.input_evidence(Recognition("yolox_nano", 80), layer).style == ""


def test_fresh_and_empty_layers_tell_nothing():
    fresh = TABLE.input_evidence(Recognition("yolox_nano", 80), first_layer(1.1, shift=0.0))
    assert (fresh.style, fresh.reason) == ("", "the first layer was not trained")
    dead = {
        name: np.zeros_like(array) if "conv" in name.split(".")[-2] else array
        for name, array in first_layer(1.1).items()
    }
    assert TABLE.input_evidence(Recognition("yolox_nano", 80), dead).style == ""


def test_mindyolos_names_tell_the_input():
    theirs = tensors("yolox_nano", "mindyolo_keys.json")
    _, found = recognize(theirs, where="x.ckpt")
    assert TABLE.input_evidence(found, theirs).style == "mindyolo"


def test_styles():
    styles = TABLE.input_styles(Recognition("yolox_nano", 80), InputSpec(size=(416, 320)))
    assert list(styles) == ["official", "legacy", "mindyolo"]
    assert {spec.size for spec in styles.values()} == {(416, 320)}
    assert [
        (spec.color, spec.scale == 1, any(spec.mean), spec.pad_anchor) for spec in styles.values()
    ] == [
        ("bgr", True, False, "topleft"),
        ("rgb", False, True, "topleft"),
        ("rgb", False, False, "center"),
    ]


@pytest.mark.parametrize(
    ("file", "style"),
    [
        ("yolox_nano_0.1.1rc0_bnident.pth", "official"),
        ("yolox_nano_0.0.1legacy_bnident.pth", "legacy"),
        ("yolox_nano_1class.pth", "legacy"),
    ],
)
def test_published_weights_tell_the_input(shared, file, style):
    from mindyolo_ext.checkpoint.reader import read_checkpoint

    path = shared / "weights" / "yolox" / file
    if not path.exists():
        pytest.skip(f"no {path}")
    weights = read_checkpoint(path).tensors
    assert TABLE.input_evidence(recognize(weights, where=file)[1], weights).style == style

"""DynamicDet names: what each number in the original's modules is, with and without a router, in
both directions.
"""

import json

import numpy as np
import pytest
from helpers import DEFAULT_GOLDEN, quick_cases
from seeded import seeded_state_dict

from mindyolo_ext.checkpoint.names import Recognition, map_tensors, source_names, to_source_tensors
from mindyolo_ext.checkpoint.tables import recognize, table_of
from mindyolo_ext.checkpoint.verify import _our_layer
from mindyolo_ext.errors import CheckpointError
from mindyolo_ext.models.dynamicdet import reference
from mindyolo_ext.models.dynamicdet.names import MODULES

TABLE = table_of("dynamicdet")
ROOT = DEFAULT_GOLDEN / "dynamicdet"
DETECT = {"dy_yolov7": 54, "dy_yolov7x": 62, "dy_yolov7_w6": 71, "dy_yolov7_w0125": 54}
CASES = [*((variant, True) for variant in DETECT), ("dy_yolov7_w0125", False)]
NARROW = "dy_yolov7_w0125"
QUICK = [(NARROW, True), (NARROW, False)]


def light_tensors(variant: str, *, router: bool = True) -> dict[str, np.ndarray]:
    """The state dict's names, shapes and types, without memory; only the anchors are real."""
    keys = json.loads((ROOT / variant / "keys.json").read_text(encoding="utf-8"))
    with np.load(ROOT / variant / "const.npz") as file:
        anchors = {name: file[name] for name in file.files}
    return {
        name: anchors.get(name, np.broadcast_to(np.zeros((), dtype), shape))
        for name, shape, dtype in keys
        if router or not name.startswith("router.")
    }


def recognition(variant: str, classes: int = 80, *, router: bool = True) -> Recognition:
    return Recognition(variant, classes, keywords={"router": router}, renames=MODULES[variant])


def parameters(found: Recognition) -> dict[str, np.ndarray]:
    """Our parameters, without memory."""
    from mindyolo_ext.backend.parameters import named_parameters
    from mindyolo_ext.models.registry import create_model

    cell = create_model(found.model, num_classes=found.num_classes, **found.keywords)
    return {
        name: np.broadcast_to(np.zeros((), np.float32), parameter.shape)
        for name, parameter in named_parameters(cell).items()
    }


@pytest.mark.parametrize(("variant", "router"), quick_cases(CASES, QUICK))
def test_names_fill_every_parameter_both_ways(variant, router):
    tensors = light_tensors(variant, router=router)
    _, found = recognize(tensors, where="x.pt")
    assert found == recognition(variant, router=router)
    ours = parameters(found)
    result = map_tensors(TABLE, found, tensors, ours, where="x.pt")
    assert (set(result.values), result.unfilled, result.supplied, result.warnings) == (
        set(ours),
        [],
        {},
        [],
    )
    assert {name for name in result.ignored if not name.endswith("num_batches_tracked")} == {
        f"{head}.{DETECT[variant]}.{name}"
        for head in ("model_h", "model_h2")
        for name in ("anchors", "anchor_grid")
    }
    architecture = {"router": router, **TABLE.builder_keywords(tensors, None)}
    back = to_source_tensors(TABLE, result.values, model=variant, architecture=architecture)
    assert list(back) == list(tensors)
    for name, array in tensors.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape), name
        assert name.rpartition(".")[2] not in ("anchors", "anchor_grid") or np.array_equal(
            back[name], array
        )
    trained = sum(
        array.size
        for name, array in ours.items()
        if not name.endswith(("moving_mean", "moving_variance"))
    )
    meta = json.loads((ROOT / variant / "meta.json").read_text(encoding="utf-8"))
    assert trained == meta["params_step2" if router else "params"]


@pytest.mark.parametrize(("variant", "router"), CASES)
def test_order_of_modules_does_not_depend_on_ours(variant, router):
    tensors = light_tensors(variant, router=router)
    found = recognition(variant, router=router)
    ours = parameters(found)
    names = source_names(TABLE, ours, variant)
    wanted = json.loads((ROOT / variant / "grad_names.json").read_text(encoding="utf-8"))
    wanted += [name for name in tensors if name.startswith("router.")]
    assert sorted(
        name for name in names.values() if not name.endswith(("running_mean", "running_var"))
    ) == sorted(wanted)
    architecture = {"anchors": TABLE.builder_keywords(tensors, None)["anchors"]}
    back = to_source_tensors(TABLE, ours, model=variant, architecture=architecture)

    def modules(state):
        return list(dict.fromkeys(name.rpartition(".")[0] for name in state))

    assert modules(back) == modules(tensors)


def test_the_numbers_of_like_layers():
    """Layers of equal shape, which the shape check cannot tell apart; the numbers come from the
    original's configs.
    """
    assert {
        theirs: MODULES["dy_yolov7"][theirs]
        for theirs in (
            "model_b.4",
            "model_b.5",
            "model_b.6",
            "model_b.9",
            "model_b.13",
            "model_b.14",
            "model_b2.8",
            "model_b2.20",
            "model_b2.21",
            "model_h.26",
            "model_h.27",
            "model_h2.17",
            "model_h2.18",
        )
    } == {
        "model_b.4": "backbone.stages.0.elan.cv1",
        "model_b.5": "backbone.stages.0.elan.cv2",
        "model_b.6": "backbone.stages.0.elan.chain.0",
        "model_b.9": "backbone.stages.0.elan.chain.3",
        "model_b.13": "backbone.stages.1.down.pooled",
        "model_b.14": "backbone.stages.1.down.narrow",
        "model_b2.8": "backbone2.stem.2",
        "model_b2.20": "backbone2.stages.1.down.pooled",
        "model_b2.21": "backbone2.stages.1.down.narrow",
        "model_h.26": "head.down.0.pooled",
        "model_h.27": "head.down.0.narrow",
        "model_h2.17": "head2.top_down.1.cv1",
        "model_h2.18": "head2.top_down.1.cv2",
    }
    assert (MODULES["dy_yolov7x"]["model_b2.22"], MODULES["dy_yolov7x"]["model_b2.23"]) == (
        "backbone2.stages.1.down.pooled",
        "backbone2.stages.1.down.narrow",
    )
    assert (MODULES["dy_yolov7_w6"]["model_b2.46"], MODULES["dy_yolov7_w6"]["model_h.57"]) == (
        "backbone2.stages.4.down",
        "head.down.2",
    )
    assert "model_b.0" not in MODULES["dy_yolov7_w6"]  # reorganizes the image


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("layer/model_b.0.conv#0", "layer/backbone.stem.0.conv#0"),
        ("layer/model_h.54.m.1#0", "layer/head.detect.1.conv#0"),
        ("layer/model_h2.52.rbr_1x1.1#1", "layer/head2.outs.1.rbr_1x1.bn#1"),
        ("layer/model_b.10#0", "layer/model_b.10#0"),
        ("output/score", "output/score"),
    ],
)
def test_layers_of_the_original_get_our_names(theirs, ours):
    assert _our_layer(theirs, TABLE.renames(NARROW)) == ours


@pytest.mark.parametrize("classes", [1, 3])
def test_other_class_counts(classes):
    changed = {}
    for name, array in light_tensors(NARROW).items():
        shape = tuple(3 * (5 + classes) if size == 255 else size for size in array.shape)
        changed[name] = array if shape == array.shape else np.broadcast_to(np.float32(0), shape)
    _, found = recognize(changed, where="x.pt")
    assert found == recognition(NARROW, classes)
    assert map_tensors(TABLE, found, changed, parameters(found), where="x.pt").unfilled == []


def test_what_is_no_known_scale():
    tensors = light_tensors(NARROW)
    with pytest.raises(
        CheckpointError,
        match="8, 16 channels in the first layers, wanted one of .*dy_yolov7 32, 64; ",
    ):
        recognize({**tensors, "model_b.1.conv.weight": np.zeros((16, 8, 3, 3))}, where="x.pt")
    last = "model_h2.54.m.0.weight"
    with pytest.raises(
        CheckpointError, match=rf"{last} has 256 channels, wanted 3 anchors with 5 values"
    ):
        recognize({**tensors, last: np.zeros((256, 32, 1, 1))}, where="x.pt")
    del tensors[last]
    with pytest.raises(
        CheckpointError, match=f"{last} is missing, which determines the classes of {NARROW}"
    ):
        recognize(tensors, where="x.pt")


def test_a_yolov7_is_another_family():
    tensors = {
        name.replace("model_b.", "model."): array
        for name, array in light_tensors(NARROW).items()
        if name.startswith("model_b.")
    }
    assert TABLE.recognize(tensors) == []


@pytest.mark.parametrize(
    ("fused", "message"),
    [
        ("model_b.0.conv.bias", "model_b.0.conv.bias stands for a norm"),
        ("model_h.0.cv1.conv.bias", "model_h.0.cv1.conv.bias stands for a norm"),
        (
            "model_h.51.rbr_reparam.weight",
            "model_h.51.rbr_reparam.weight joins the branches of a block",
        ),
    ],
)
def test_fused_weights_are_refused_by_name(fused, message):
    tensors = light_tensors(NARROW)
    block = fused.partition(".conv.bias")[0]
    changed = {
        name: array for name, array in tensors.items() if not name.startswith(f"{block}.bn.")
    }
    with pytest.raises(
        CheckpointError,
        match=rf"fused weights, .*: {message}; convert the checkpoint they were fused",
    ):
        TABLE.unfolded({**changed, fused: np.zeros(8)})
    # the convolutions between the backbones have a bias
    assert TABLE.unfolded(tensors).tensors is tensors


# ---- anchors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", DETECT)
def test_anchors_are_those_of_the_builder(variant):
    from mindyolo_ext.models.registry import create_model

    keywords = TABLE.builder_keywords(light_tensors(variant), None)
    if variant in (NARROW, "dy_yolov7_w6"):
        assert create_model(variant).architecture == {"router": True, **keywords}
    meta = json.loads((ROOT / variant / "meta.json").read_text(encoding="utf-8"))
    assert np.array_equal(np.reshape(keywords["anchors"], (meta["levels"], 6)), meta["anchors"])


def with_anchors(head: str, factor: float, *, names: tuple[str, ...] = ("anchors", "anchor_grid")):
    tensors = light_tensors(NARROW)
    return {
        name: array * np.float32(factor)
        if name.startswith(head) and name.endswith(names)
        else array
        for name, array in tensors.items()
    }


def test_automatic_anchors_of_the_second_head():
    """The original's anchor search changes only the second head's anchors, and trains both heads
    with them.
    """
    tensors = with_anchors("model_h2.", 1.5)
    assert TABLE.builder_keywords(tensors, None)["anchors"][:2] == [[18.0, 24.0], [28.5, 54.0]]
    assert TABLE.unfolded(light_tensors(NARROW)).warnings == ()
    (warning,) = TABLE.unfolded(tensors).warnings
    assert warning.startswith("the two heads have different anchors")


def test_anchors_that_contradict_each_other():
    with pytest.raises(
        CheckpointError, match=r"model_h2.54.anchors in cells and model_h2.54.anchor_grid in pixels"
    ):
        TABLE.builder_keywords(with_anchors("model_h2.", 1.5, names=("anchor_grid",)), None)
    tensors = {**light_tensors(NARROW), "model_h2.54.anchor_grid": np.zeros((3, 3, 2))}
    with pytest.raises(
        CheckpointError, match=r"anchor_grid is \(3, 3, 2\), wanted \(levels, 1, 3, 1, 1, 2\)"
    ):
        TABLE.builder_keywords(tensors, None)


def test_anchors_from_elsewhere():
    tensors = {name: array for name, array in light_tensors(NARROW).items() if "anchor" not in name}
    with pytest.raises(
        CheckpointError, match="no anchor_grid of the second head: give the anchors with --anchors"
    ):
        TABLE.builder_keywords(tensors, None)
    assert TABLE.builder_keywords(tensors, (1, 2, 3.5, 4)) == {"anchors": [[1.0, 2.0], [3.5, 4.0]]}
    with pytest.raises(CheckpointError, match="3 anchor numbers, wanted width and height"):
        TABLE.builder_keywords(tensors, (1, 2, 3))
    with pytest.raises(CheckpointError, match="anchors were given, but the file has its own"):
        TABLE.builder_keywords(light_tensors(NARROW), (1, 2))


def test_anchors_are_exact_in_half_precision():
    for variant in DETECT:
        state = (
            seeded_state_dict(ROOT / variant, 0) if variant == NARROW else light_tensors(variant)
        )
        for name in [name for name in state if "anchor" in name]:
            assert np.array_equal(state[name].astype(np.float16), state[name]), name


# ---- stored arrays -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "rows", "side"),
    [(2, 2268, 192), (1, 63, 32), (1, 255, 64), (1, 102000, 1280), (2, 2295, 192)],
)
def test_the_input_of_stored_arrays(batch, rows, side):
    kept = np.zeros(-(-batch * rows * 85 // 13))
    assert reference.case_input(
        {"eval_score": np.zeros((batch, 1)), "eval_hard_decoded_s13": kept}
    ) == (batch, side, side)


@pytest.mark.parametrize(
    "arrays", [{}, {"eval_score": np.zeros((2, 1)), "eval_hard_decoded_s13": np.zeros(29700)}]
)
def test_stored_arrays_of_another_kind(arrays):
    with pytest.raises(
        CheckpointError, match="have no eval_score|29700 numbers, which 2 square images do not give"
    ):
        reference.case_input(arrays)

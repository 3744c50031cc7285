"""Gold-YOLO names: four scales in their forms, as trained and as deployed, in both directions."""

import json

import numpy as np
import pytest
from helpers import quick_cases
from models.gold_yolo.files import CASES, VARIANTS, deployed, folder, light_tensors, reference

from mindyolo_ext.checkpoint.names import Recognition, map_tensors, to_source_tensors
from mindyolo_ext.checkpoint.tables import recognize, table_of
from mindyolo_ext.errors import CheckpointError
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.gold_yolo import reference as stored_names

TABLE = table_of("gold_yolo")
QUICK_VARIANTS = (
    "gold_yolo_n",
    "gold_yolo_n/plain",
    "gold_yolo_n/distill",
)  # as the ledger has them
QUICK = [case for case in CASES if case[0] == "gold_yolo_n"]
N_DISTILL = Recognition("gold_yolo_n", 80, keywords={"form": "distill"})


@pytest.fixture(scope="module")
def root(request):
    """The reference folder; skipped where there is none."""
    return reference(request)


def parameters(found: Recognition) -> dict[str, np.ndarray]:
    """Our parameters, without memory."""
    from mindyolo_ext.backend.parameters import named_parameters
    from mindyolo_ext.models.registry import create_model

    cell = create_model(found.model, num_classes=found.num_classes, **found.keywords)
    assert cell.architecture == found.keywords
    return {
        name: np.broadcast_to(np.zeros((), np.float32), parameter.shape)
        for name, parameter in named_parameters(cell).items()
    }


@pytest.mark.parametrize(("variant", "form"), quick_cases(CASES, QUICK))
def test_names_fill_every_parameter_both_ways(root, variant, form):
    tensors = light_tensors(root, variant, form)
    _, found = recognize(tensors, where="x.pt")
    assert found == Recognition(variant, 80, keywords={"form": form})
    ours = parameters(found)
    result = map_tensors(TABLE, found, tensors, ours, where="x.pt")
    assert (set(result.values), result.unfilled, result.supplied, result.warnings) == (
        set(ours),
        [],
        {},
        [],
    )
    assert {name for name in result.ignored if not name.endswith("num_batches_tracked")} == {
        "detect.proj",
        "detect.proj_conv.weight",
    }
    back = to_source_tensors(TABLE, {name: np.asarray(ours[name]) for name in result.values})
    assert list(back) == list(tensors)
    assert {name: (array.dtype, array.shape) for name, array in back.items()} == {
        name: (array.dtype, array.shape) for name, array in tensors.items()
    }
    trained = sum(
        array.size
        for name, array in ours.items()
        if not name.endswith(("moving_mean", "moving_variance"))
    )
    meta = json.loads((folder(root, variant, form) / "meta.json").read_text(encoding="utf-8"))
    assert trained == meta["params"]


@pytest.mark.parametrize(("variant", "form"), CASES)
def test_order_of_the_original(root, variant, form):
    found = Recognition(variant, 80, keywords={"form": form})
    names = [TABLE.to_source(name) for name in parameters(found)]
    trainable = [name for name in names if not name.endswith(("running_mean", "running_var"))]
    assert trainable == json.loads(
        (folder(root, variant, form) / "grad_names.json").read_text(encoding="utf-8")
    )


@pytest.mark.parametrize(
    ("variant", "form"), [case for case in CASES if case[1] == "plain" or case[0][-1] == "n"]
)
def test_deployed_names_become_all_names(root, variant, form):
    trained = light_tensors(root, variant, form)
    folded = deployed(trained)
    meta = json.loads((folder(root, variant, form) / "meta.json").read_text(encoding="utf-8"))
    counted = sum(
        array.size
        for name, array in folded.items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    )
    assert counted - 2 * 17 == meta["params_deploy"]  # as the original counts them
    _, found = recognize(folded, where="x.pt")
    assert found == Recognition(variant, 80, keywords={"form": form})
    ours = parameters(found)
    result = map_tensors(TABLE, found, folded, ours, where="x.pt")
    assert set(result.sources) | set(result.ignored) == set(folded)
    assert set(result.sources.values()) | set(result.supplied) == set(ours)
    assert not set(result.sources.values()) & set(result.supplied)
    assert [warning.split(":")[0] for warning in result.warnings] == ["deployed weights"]


def test_a_folded_layer_keeps_its_numbers():
    random = np.random.RandomState(0)
    kernel, bias = (
        random.standard_normal((4, 4, 3, 3)).astype(np.float32),
        random.standard_normal(4).astype(np.float32),
    )
    for name in ("a.rbr_reparam", "a.conv", "a.block.conv"):
        tensors = TABLE.unfolded({f"{name}.weight": kernel, f"{name}.bias": bias}).tensors
        block = name.rpartition(".")[0]
        conv, norm = (
            (f"{block}.rbr_dense.conv", f"{block}.rbr_dense.bn")
            if "rbr" in name
            else (name, f"{block}.bn")
        )
        gamma, beta, mean, variance = (
            tensors[f"{norm}.{leaf}"] for leaf in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + np.float32(1e-3))
        np.testing.assert_array_equal(tensors[f"{conv}.weight"], kernel)
        np.testing.assert_allclose(scale, 1, rtol=0, atol=2e-7)
        np.testing.assert_array_equal(beta - mean * scale, bias)
        others = [
            array
            for place, array in tensors.items()
            if not place.startswith((norm, f"{conv}.weight")) and not place.endswith("running_var")
        ]
        assert not any(array.any() for array in others)
        assert len(others) == {"a.rbr_reparam": 7, "a.conv": 0, "a.block.conv": 1}[name]


def test_a_block_that_widens_has_no_identity_branch():
    folded = {"a.rbr_reparam.weight": np.zeros((4, 2, 3, 3)), "a.rbr_reparam.bias": np.zeros(4)}
    tensors = TABLE.unfolded(folded).tensors
    assert not any("rbr_identity" in name for name in tensors)
    assert tensors["a.rbr_1x1.conv.weight"].shape == (4, 2, 1, 1)


@pytest.mark.parametrize("form", ["fuse_ab", "plain", "distill"])
def test_other_class_counts(root, form):
    changed = {}
    for name, array in light_tensors(root, "gold_yolo_n", form).items():
        shape = (
            (array.shape[0] // 80 * 3, *array.shape[1:]) if ".cls_preds" in name else array.shape
        )
        changed[name] = array if shape == array.shape else np.broadcast_to(np.float32(0), shape)
    _, found = recognize(changed, where="x.pt")
    assert found == Recognition("gold_yolo_n", 3, keywords={"form": form})
    assert map_tensors(TABLE, found, changed, parameters(found), where="x.pt").unfilled == []


def test_other_sizes_and_heads_are_told(root):
    tensors = light_tensors(root, "gold_yolo_n", "plain")
    with pytest.raises(
        CheckpointError,
        match="40 RepVGG channels in the stem, wanted one of gold_yolo_n 16 RepVGG; ",
    ):
        recognize(
            {**tensors, "backbone.stem.rbr_dense.conv.weight": np.zeros((40, 3, 3, 3))},
            where="x.pt",
        )
    with pytest.raises(
        CheckpointError, match=r"the box head has 4 channels, wanted 68; .*use_dfl=False"
    ):
        recognize({**tensors, "detect.reg_preds.0.weight": np.zeros((4, 32, 1, 1))}, where="x.pt")
    del tensors["detect.reg_preds.0.weight"]
    with pytest.raises(CheckpointError, match="the box head has no channels"):
        recognize(tensors, where="x.pt")


def test_a_yolov6_is_another_family(root):
    tensors = {
        name: array
        for name, array in light_tensors(root, "gold_yolo_n", "plain").items()
        if not name.startswith("neck.")
    }
    assert TABLE.recognize(tensors) == []


def test_constants_must_be_those_of_the_architecture(root):
    tensors = light_tensors(root, "gold_yolo_n", "plain")
    _, found = recognize(tensors, where="x.pt")
    ours = parameters(found)
    with pytest.raises(
        CheckpointError,
        match=r"x\.pt: 1 constants of the architecture with other numbers .*"
        r"detect.proj is \(17,\): 0.5, 1.5, 2.5, 3.5, ..., wanted "
        r"\(17,\): 0, 1, 2, 3, ...",
    ):
        map_tensors(
            TABLE, found, {**tensors, "detect.proj": np.arange(17) + 0.5}, ours, where="x.pt"
        )
    averaged = np.arange(17, dtype=np.float32) * 1.0005  # a moving average rounds constants
    map_tensors(TABLE, found, {**tensors, "detect.proj": averaged}, ours, where="x.pt")
    with pytest.raises(CheckpointError, match="1 constants of the architecture"):
        map_tensors(TABLE, found, {**tensors, "detect.proj": averaged * 1.001}, ours, where="x.pt")
    del tensors["detect.proj"]  # a file without them is complete
    assert map_tensors(TABLE, found, tensors, ours, where="x.pt").unfilled == []


@pytest.mark.parametrize(
    ("variant", "longer"), list(zip(VARIANTS, (636, 634, 636, 636), strict=True))
)
def test_photos_for_published_weights_are_a_little_smaller(variant, longer):
    usual = InputSpec(color="rgb")
    styles = TABLE.input_styles(Recognition(variant, 80), usual)
    assert (list(styles), styles["usual"]) == (["usual", "published"], usual)
    place = styles["published"].place(480, 320)
    assert (place.scale_y, place.pad_y) == (longer / 480, (640 - longer) // 2)


@pytest.mark.parametrize(
    ("variant", "form", "classes", "style"),
    [
        ("gold_yolo_n", "distill", 80, "published"),
        ("gold_yolo_m", "plain", 80, "published"),
        ("gold_yolo_n", "plain", 80, "usual"),
        ("gold_yolo_l", "fuse_ab", 80, "usual"),
        ("gold_yolo_s", "distill", 3, "usual"),
    ],
)
def test_which_weights_may_be_the_published_ones(variant, form, classes, style):
    evidence = TABLE.input_evidence(Recognition(variant, classes, keywords={"form": form}), {})
    assert evidence.style == style
    assert f"{form} head of {classes} classes" in evidence.reason


@pytest.mark.parametrize(
    ("rows", "wanted"), [(756, (2, 192, 192)), (21, (2, 32, 32)), (8400, (2, 640, 640))]
)
def test_the_input_of_stored_arrays(rows, wanted):
    assert stored_names.case_input({"eval_boxes": np.zeros((2, rows, 4))}) == wanted


@pytest.mark.parametrize("arrays", [{}, {"eval_boxes": np.zeros((1, 735, 4))}])
def test_stored_arrays_of_another_kind(arrays):
    with pytest.raises(
        CheckpointError, match="have no eval_boxes|735 rows, which no square image gives"
    ):
        stored_names.case_input(arrays)

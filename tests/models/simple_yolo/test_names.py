"""Simple YOLO names: five backbones of any width, torchvision's ResNets, in both directions."""

import importlib.util
import json
import types
from pathlib import Path

import numpy as np
import pytest
from models.simple_yolo.files import COUNTER, detector, light, torchvision_resnet

from mindyolo_ext.checkpoint.names import Recognition, map_tensors, to_source_tensors
from mindyolo_ext.checkpoint.tables import recognize, table_of
from mindyolo_ext.errors import CheckpointError
from mindyolo_ext.models import simple_yolo
from mindyolo_ext.models.simple_yolo import reference

TABLE = table_of("simple_yolo")
VARIANTS = {
    "resnet18_025": (18, 0.25),
    "resnet18_075": (18, 0.75),
    "resnet18_075_all_grid": (18, 0.75),
    "resnet34_075": (34, 0.75),
    "resnet50_075": (50, 0.75),
    "darknet_050": ("darknet", 0.5),
}


def parameters(found: Recognition, **keywords: object) -> dict[str, np.ndarray]:
    """Our parameters, without memory."""
    from mindyolo_ext.backend.parameters import named_parameters
    from mindyolo_ext.models.registry import create_model

    classes = {} if found.num_classes is None else {"num_classes": found.num_classes}
    cell = create_model(found.model, **classes, **{**found.keywords, **keywords})
    return {
        name: np.broadcast_to(np.zeros((), np.float32), parameter.shape)
        for name, parameter in named_parameters(cell).items()
    }


def model_of(backbone: int | str) -> str:
    return "simple_yolo_darknet" if backbone == "darknet" else f"simple_yolo_resnet{backbone}"


@pytest.mark.parametrize(
    ("backbone", "share"),
    [
        (18, 0.0625),
        (18, 0.4),
        (34, 0.03125),
        (50, 0.015625),
        (101, 0.015625),
        ("darknet", 0.125),
        ("darknet", 1.25),
    ],
)
def test_names_fill_every_parameter_both_ways(backbone, share):
    tensors = light(detector(backbone, share, 3))
    _, found = recognize(tensors, where="x.pth")
    assert found == Recognition(model_of(backbone), 3, keywords={"channel_sparsity": share})
    ours = parameters(found)
    result = map_tensors(TABLE, found, tensors, ours, where="x.pth")
    assert (set(result.values), result.unfilled, result.supplied, result.warnings) == (
        set(ours),
        [],
        {},
        [],
    )
    assert all(name.endswith(COUNTER) for name in result.ignored)
    back = to_source_tensors(TABLE, result.values, model=found.model)
    assert {name: array.shape for name, array in back.items()} == {
        name: a.shape for name, a in tensors.items()
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_of_the_original(shared, variant):
    path = shared / "reference" / "simple_yolo" / variant / "keys.json"
    if not path.is_file():
        pytest.skip(f"no {path}")
    keys = {name: tuple(shape) for name, shape, _ in json.loads(path.read_text(encoding="utf-8"))}
    drawn = detector(*VARIANTS[variant], 20)
    assert drawn == keys
    assert TABLE.recognize(light(drawn))[0].keywords == {"channel_sparsity": VARIANTS[variant][1]}


@pytest.mark.parametrize(
    ("channels", "told"),
    [(384, 0.75), (204, 0.4), (296, 0.58), (512, 1.0), (32, 0.0625), (36, 36 / 512), (148, 0.29)],
)
def test_the_width_has_two_decimals_if_they_give_it_exactly(channels, told):
    shapes = detector(18, told, 1)
    assert shapes["det_head.heads.2.weight"][1] == channels
    (found,) = TABLE.recognize(light(shapes))
    assert found.keywords == {"channel_sparsity": told}


def test_learned_slopes_tell_the_activation():
    fresh = Recognition(
        "simple_yolo_resnet18", 2, keywords={"channel_sparsity": 0.0625, "act": "prelu"}
    )
    tensors = to_source_tensors(TABLE, parameters(fresh))
    assert "backbone.layer1.0.relu.activation.weight" in tensors
    assert TABLE.recognize(tensors) == [fresh]
    result = map_tensors(TABLE, fresh, tensors, parameters(fresh), where="x.pth")
    assert set(result.values) == set(parameters(fresh))


# ---- anchors and what a file does not say --------------------------------------------------------


def test_anchors_of_other_numbers_change_the_classes():
    # 24 channels: three anchors would mean 3 classes
    tensors = light(detector(18, 0.0625, 7, per_level=2))
    assert TABLE.recognize(tensors)[0].num_classes == 3
    assert TABLE.builder_keywords(tensors, tuple(range(1, 13)))["num_classes"] == 7
    two = TABLE.builder_keywords(light(detector(18, 0.0625, 2)), tuple(range(1, 19)))
    assert (len(two["anchors"]), two["anchors"][1], two["num_classes"]) == (9, [3.0, 4.0], 2)
    assert TABLE.builder_keywords(tensors, None) == {}


@pytest.mark.parametrize(
    ("per_level", "anchors", "message"),
    [
        (
            4,
            None,
            "32 channels, which 3 anchors per level do not explain; .* set them with --anchors",
        ),
        (3, (1.0,) * 30, "24 channels, which 5 anchors per level do not explain"),
        (
            3,
            (1.0,) * 16,
            "16 anchor numbers, wanted width and height of equally many anchors for each of 3 "
            "levels",
        ),
        (3, (), "0 anchor numbers"),
    ],
)
def test_anchors_that_do_not_fit(per_level, anchors, message):
    tensors = light(detector(18, 0.0625, 3, per_level=per_level))
    TABLE.recognize(tensors)
    with pytest.raises(CheckpointError, match=message):
        TABLE.builder_keywords(tensors, anchors)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, ["nearby_grid and COCO's anchors", "assignment=single_grid", "--anchors"]),
        ({"anchors": []}, ["took assignment nearby_grid. "]),
        ({"assignment": "x"}, []),
        ({"assignment": "x", "anchors": []}, []),
    ],
)
def test_what_was_taken_for_granted_is_told(given, told):
    remarks = TABLE.remarks(
        Recognition("simple_yolo_resnet18", 20, keywords={"channel_sparsity": 1.0}), given
    )
    assert len(remarks) == bool(told)
    assert all(text in remarks[0] for text in told)


# ---- torchvision ---------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_torchvision_resnets_become_narrow_backbones(depth):
    tensors = light(torchvision_resnet(depth, counters=depth != 18))
    _, found = recognize(tensors, where="x.pth")
    assert found == Recognition(
        f"simple_yolo_resnet{depth}",
        None,
        keywords={"channel_sparsity": 1.0},
        prefix="backbone.",
        part="backbone",
    )
    narrow = TABLE.sliced(tensors, found, {"channel_sparsity": 0.0625})
    ours = parameters(found, channel_sparsity=0.0625)
    result = map_tensors(TABLE, found, narrow, ours, where="x.pth")
    assert set(result.values) == {name for name in ours if name.startswith("backbone.")}
    assert {name for name in result.ignored if not name.endswith(COUNTER)} == {
        "fc.weight",
        "fc.bias",
    }
    assert TABLE.sliced(tensors, found, {"channel_sparsity": 1}) is tensors


def test_only_full_width_is_sliced():
    tensors = light(torchvision_resnet(18, 0.5))
    (found,) = TABLE.recognize(tensors)
    with pytest.raises(
        CheckpointError,
        match=r"already has 0.5 of the full width, .* take channel_sparsity 0.25 from",
    ):
        TABLE.sliced(tensors, found, {"channel_sparsity": 0.25})
    assert "only a model of that width can start from it" in TABLE.remarks(found, {})[0]
    assert TABLE.remarks(found, {"channel_sparsity": 0.5}) == []


def test_a_whole_model_is_never_sliced():
    tensors = light(detector(18, 1.0, 2))
    (found,) = TABLE.recognize(tensors)
    assert TABLE.sliced(tensors, found, {"channel_sparsity": 0.5}) is tensors


@pytest.mark.parametrize("tensors", [light(torchvision_resnet(152)), light(detector(152, 0.25, 2))])
def test_other_resnets_are_refused(tensors):
    with pytest.raises(
        CheckpointError, match=r"a ResNet of \(3, 8, 36, 3\) bottlenecks, wanted one of ResNet-18"
    ):
        TABLE.recognize(tensors)


def test_a_wide_resnet_does_not_pass_for_a_resnet_50():
    tensors = light(torchvision_resnet(50))
    tensors["layer1.0.conv2.weight"] = np.zeros((128, 128, 3, 3), np.float32)
    (found,) = TABLE.recognize(tensors)
    with pytest.raises(
        CheckpointError, match=r"layer1.0.conv2.weight is \(8, 8, 3, 3\), .* is \(4, 4, 3, 3\)"
    ):
        map_tensors(
            TABLE,
            found,
            TABLE.sliced(tensors, found, {"channel_sparsity": 0.0625}),
            parameters(found, channel_sparsity=0.0625),
            where="x.pth",
        )


def test_incomplete_names_are_nobodys():
    for name in ("det_head.heads.0.weight", "spp.conv2.0.weight", "backbone.layer4.0.conv1.weight"):
        tensors = light(detector(18, 0.0625, 2))
        del tensors[name]
        assert TABLE.recognize(tensors) == []


# ---- verify --------------------------------------------------------------------------------------


def test_the_input_of_stored_arrays():
    assert reference.case_input({"eval_l0": np.zeros((2, 3, 24, 16, 25))}) == (2, 192, 128)
    with pytest.raises(CheckpointError, match="have no eval_l0"):
        reference.case_input({"eval_decoded": np.zeros((2, 9, 25))})


def test_the_original_is_built_without_a_download():
    path = Path(simple_yolo.__file__).with_name("original.py")
    spec = importlib.util.spec_from_file_location("simple_yolo_hook", path)
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)

    def maker(name):
        return lambda pretrained=False: (name, pretrained)

    package = types.SimpleNamespace(**{name: maker(name) for name in hook.RESNETS})
    hook.keep_from_downloading(package)
    assert package.resnet50(pretrained=True) == ("resnet50", False)
    assert package.resnet18(pretrained=True) == ("resnet18", False)

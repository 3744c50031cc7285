"""Conversion to our checkpoints and back, complete and exact."""

import json

import numpy as np
import pytest
from helpers import DEFAULT_GOLDEN

from mindyolo_ext.checkpoint.convert import convert, export_torch, in_half
from mindyolo_ext.checkpoint.inspect import describe
from mindyolo_ext.checkpoint.metadata import CheckpointMetadata
from mindyolo_ext.checkpoint.reader import file_sha256, read_checkpoint
from mindyolo_ext.checkpoint.store import load_checkpoint, save_checkpoint
from mindyolo_ext.checkpoint.torch_writer import write_torch_checkpoint
from mindyolo_ext.class_names import COCO_NAMES, default_names
from mindyolo_ext.errors import CheckpointError, UsageError

GOLDEN = DEFAULT_GOLDEN / "yolo_fastestv2"
OFFICIAL = GOLDEN / "official_format_yolo_fastestv2.pth"
COUNTER_REASON = "counts training batches; no batch norm here has such a counter"


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    """The original's weights, with counters that differ between layers."""
    tensors = read_checkpoint(OFFICIAL).tensors
    counters = [name for name in tensors if name.endswith("num_batches_tracked")]
    return {**tensors, **{name: np.array(index + 5) for index, name in enumerate(counters)}}


def assert_same(tensors, wanted):
    assert set(tensors) == set(wanted)
    for name, array in wanted.items():
        assert (tensors[name].dtype, tensors[name].shape) == (array.dtype, array.shape), name
        assert tensors[name].tobytes() == array.tobytes(), name


def test_there_and_back_bit_for_bit(tmp_path, state):
    write_torch_checkpoint(tmp_path / "x.pth", state)
    report = convert(tmp_path / "x.pth", tmp_path / "x.ckpt", report=tmp_path / "report.json")
    assert (len(report.mapped), len(report.ignored), report.unfilled, report.warnings) == (
        371,
        73,
        [],
        [],
    )
    assert set(report.mapped) | set(report.ignored) == set(state)
    assert set(report.ignored.values()) == {COUNTER_REASON}
    assert report.mapped["fpn.conv1x1_2.1.weight"] == "fpn.conv1x1_2.1.gamma"
    assert report.source_sha256 == file_sha256(tmp_path / "x.pth")
    assert report.target_sha256 == file_sha256(tmp_path / "x.ckpt")
    assert json.loads((tmp_path / "report.json").read_text())["model"] == "yolo_fastestv2"
    assert "371 converted (251,591 numbers), 73 ignored" in report.table()
    back = export_torch(tmp_path / "x.ckpt", tmp_path / "back.pth")
    assert back.mapped["fpn.conv1x1_2.1.gamma"] == "fpn.conv1x1_2.1.weight"
    assert_same(read_checkpoint(tmp_path / "back.pth").tensors, state)


def test_metadata(tmp_path):
    convert(OFFICIAL, tmp_path / "x.ckpt")
    parameters, metadata = load_checkpoint(tmp_path / "x.ckpt")
    assert (metadata.model, metadata.num_classes, metadata.epoch) == ("yolo_fastestv2", 80, None)
    assert metadata.class_names == list(COCO_NAMES)
    assert metadata.input_spec.size == (352, 352)
    assert metadata.architecture["anchors"][0] == [12.64, 19.39]
    assert metadata.source == {
        "file": OFFICIAL.name,
        "sha256": file_sha256(OFFICIAL),
        "format": "torch-zip",
        "entry": "",
        "ema": False,
    }
    weights = read_checkpoint(OFFICIAL).tensors
    assert np.array_equal(
        parameters["backbone.first_conv.1.moving_variance"],
        weights["backbone.first_conv.1.running_var"],
    )


def test_safetensors_hold_the_same(tmp_path):
    for suffix in (".ckpt", ".safetensors"):
        convert(OFFICIAL, tmp_path / f"x{suffix}")
        export_torch(tmp_path / f"x{suffix}", tmp_path / f"{suffix[1:]}.pth")
    parameters, metadata = load_checkpoint(tmp_path / "x.ckpt")
    found, about = load_checkpoint(tmp_path / "x.safetensors")
    assert about == metadata
    assert list(found) == list(parameters)
    assert_same(found, parameters)
    back = (tmp_path / "safetensors.pth").read_bytes()
    assert back == (tmp_path / "ckpt.pth").read_bytes()
    infos = [describe(tmp_path / f"x{suffix}") for suffix in (".ckpt", ".safetensors")]
    for info in infos:
        info.path = info.sha256 = info.bytes = ""
        for key in ("count", "order", "sha256"):
            info.metadata.pop(key, None)
    assert infos[0] == infos[1]
    with pytest.raises(CheckpointError, match=r"our checkpoints end in \.ckpt or \.safetensors"):
        convert(OFFICIAL, tmp_path / "x.npz")
    with pytest.raises(CheckpointError, match="already a mindyolo_ext checkpoint"):
        convert(tmp_path / "x.safetensors", tmp_path / "y.safetensors")


def test_from_one_format_of_ours_to_the_other(tmp_path):
    convert(OFFICIAL, tmp_path / "x.ckpt")
    parameters, metadata = load_checkpoint(tmp_path / "x.ckpt")
    parameters |= {"state.step": np.array(3), "half": np.ones(2, np.float16)}
    save_checkpoint(tmp_path / "x.ckpt", parameters, metadata)
    report = convert(tmp_path / "x.ckpt", tmp_path / "x.safetensors", report=tmp_path / "x.json")
    assert (report.source_format, report.model) == ("mindyolo_ext", "yolo_fastestv2")
    assert json.loads((tmp_path / "x.json").read_text())["mapped"]["state.step"] == "state.step"
    assert "373 converted (251,594 numbers), 0 ignored" in report.table()
    convert(tmp_path / "x.safetensors", tmp_path / "back.ckpt")
    assert (tmp_path / "back.ckpt").read_bytes() == (tmp_path / "x.ckpt").read_bytes()


def test_the_network_takes_every_parameter(tmp_path):
    from mindyolo_ext.backend.parameters import load_parameters, parameter_values
    from mindyolo_ext.models.registry import create_model

    convert(OFFICIAL, tmp_path / "x.ckpt")
    parameters, metadata = load_checkpoint(tmp_path / "x.ckpt")
    cell = create_model(metadata.model, num_classes=metadata.num_classes, **metadata.architecture)
    assert load_parameters(cell, parameters) == []
    assert_same(parameter_values(cell), parameters)


def test_half(tmp_path):
    from mindyolo_ext.backend.parameters import parameter_values
    from mindyolo_ext.engine.build import load_model

    convert(OFFICIAL, tmp_path / "whole.ckpt")
    convert(OFFICIAL, tmp_path / "half.ckpt", half=True)
    convert(tmp_path / "whole.ckpt", tmp_path / "again.ckpt", half=True)
    whole, half, again = (
        load_checkpoint(tmp_path / f"{name}.ckpt")[0] for name in ("whole", "half", "again")
    )
    assert_same(half, again)
    small = [name for name, array in half.items() if array.dtype == np.float16]
    assert 70 < len(small) < len(half)
    assert_same(
        {name: half[name] for name in set(half) - set(small)},
        {name: whole[name] for name in set(half) - set(small)},
    )
    loaded = parameter_values(load_model(tmp_path / "half.ckpt")[0])
    for name, array in whole.items():
        assert loaded[name].dtype == np.float32
        np.testing.assert_allclose(loaded[name], array, rtol=2**-11, atol=2**-25)
    size = {name: (tmp_path / f"{name}.ckpt").stat().st_size for name in ("whole", "half")}
    assert size["half"] < 0.6 * size["whole"]
    whole[small[0]][:] = 7e4
    with pytest.raises(CheckpointError, match="--half: .* holds numbers beyond 65504"):
        in_half(whole)
    with pytest.raises(UsageError, match="does not take --half"):
        convert(tmp_path / "whole.ckpt", tmp_path / "back.pth", half=True)


def with_classes(state, classes, anchors=3):
    """The weights with heads of another size."""
    state = dict(state)
    for head, count in (("reg", 4 * anchors), ("obj", anchors), ("cls", classes)):
        for leaf, shape in (("weight", (count, 72, 1, 1)), ("bias", (count,))):
            state[f"output_{head}_layers.{leaf}"] = np.full(shape, 0.5, np.float32)
    return state


def test_data_file_gives_anchors_names_and_size(tmp_path, state):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "my.names").write_text("bolt\nnut\n")
    data = tmp_path / "data" / "my.data"
    data.write_text(
        "[model-configure]\nclasses=2\nwidth=256\nheight=192\nanchor_num=2\n"
        "anchors=1,2, 3,4, 5,6, 7,8\n[data-configure]\nnames=./data/my.names\n"
    )
    write_torch_checkpoint(
        tmp_path / "x.pth",
        {f"module.{k}": v for k, v in with_classes(state, 2, 2).items()},
        wrap="ema",
    )
    report = convert(tmp_path / "x.pth", tmp_path / "x.ckpt", data=data)
    assert report.used_ema
    assert report.entry == "ema"
    _, metadata = load_checkpoint(tmp_path / "x.ckpt")
    assert metadata.class_names == ["bolt", "nut"]
    assert metadata.architecture["anchors"] == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert metadata.input_spec.size == (192, 256)
    data.write_text("classes=3\nanchors=1,2, 3,4, 5,6, 7,8\n")
    with pytest.raises(
        CheckpointError, match=r"my\.data: classes is 3, the head of .*x\.pth has 2"
    ):
        convert(tmp_path / "x.pth", tmp_path / "y.ckpt", data=data)
    with pytest.raises(CheckpointError, match="the head has 2 anchors per level"):
        convert(tmp_path / "x.pth", tmp_path / "y.ckpt")
    assert not (tmp_path / "y.ckpt").exists()


def test_class_names(tmp_path, state):
    write_torch_checkpoint(tmp_path / "x.pth", with_classes(state, 3))
    (tmp_path / "my.names").write_text("a\nb\nc\n")
    assert convert(tmp_path / "x.pth", tmp_path / "x.ckpt").class_names_from == "numbering"
    assert load_checkpoint(tmp_path / "x.ckpt")[1].class_names == ["class0", "class1", "class2"]
    convert(tmp_path / "x.pth", tmp_path / "x.ckpt", names=tmp_path / "my.names")
    assert load_checkpoint(tmp_path / "x.ckpt")[1].class_names == ["a", "b", "c"]
    with pytest.raises(
        CheckpointError, match=r"my\.names: 3 class names, the head of .* has 80 classes"
    ):
        convert(OFFICIAL, tmp_path / "x.ckpt", names=tmp_path / "my.names")
    assert default_names(80) == list(COCO_NAMES)


def test_backbone_alone(tmp_path, state):
    backbone = {
        name.removeprefix("backbone."): array
        for name, array in state.items()
        if name.startswith("backbone.")
    }
    assert len(backbone) == 330
    write_torch_checkpoint(tmp_path / "backbone.pth", backbone)
    report = convert(tmp_path / "backbone.pth", tmp_path / "x.ckpt")
    assert (report.part, len(report.mapped), len(report.unfilled)) == ("backbone", 275, 96)
    assert not any(name.startswith("backbone.") for name in report.unfilled)
    assert report.mapped["first_conv.1.weight"] == "backbone.first_conv.1.gamma"
    export_torch(tmp_path / "x.ckpt", tmp_path / "back.pth")
    assert_same(read_checkpoint(tmp_path / "back.pth").tensors, backbone)


@pytest.mark.parametrize("name", ["coco2017-0.241078ap-model.pth", "backbone.pth"])
def test_published_weights(tmp_path, shared, name):
    source = shared / "weights" / "yolo_fastestv2" / name
    if not source.exists():
        pytest.skip(f"no {source}")
    convert(source, tmp_path / "x.ckpt")
    export_torch(tmp_path / "x.ckpt", tmp_path / "back.pth")
    assert_same(read_checkpoint(tmp_path / "back.pth").tensors, read_checkpoint(source).tensors)


def test_damaged_weights_are_told(tmp_path, state):
    state = {**state, "output_cls_layers.bias": np.full(80, np.nan, np.float32)}
    write_torch_checkpoint(tmp_path / "x.pth", state)
    assert convert(tmp_path / "x.pth", tmp_path / "x.ckpt").warnings == [
        "1 tensors hold non-finite values: output_cls_layers.bias"
    ]


def test_what_is_refused(tmp_path, state):
    state = dict(state)
    del state["fpn.reg_head_2.block.4.bias"]
    write_torch_checkpoint(tmp_path / "x.pth", state)
    with pytest.raises(
        CheckpointError, match=r"1 parameters of the model that the file lacks .*block\.4\.beta"
    ):
        convert(tmp_path / "x.pth", tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="holds weights of yolo_fastestv2, not of yolox_s"):
        convert(OFFICIAL, tmp_path / "x.ckpt", model="yolox_s")
    assert not (tmp_path / "x.ckpt").exists()
    convert(OFFICIAL, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="already a mindyolo_ext checkpoint"):
        convert(tmp_path / "x.ckpt", tmp_path / "y.ckpt")


def test_mindspore_files_of_another_program(tmp_path):
    from mindyolo_ext.checkpoint.ckpt_file import write_ckpt

    convert(OFFICIAL, tmp_path / "x.ckpt")
    parameters, _ = load_checkpoint(tmp_path / "x.ckpt")
    write_ckpt(
        tmp_path / "other.ckpt", {**parameters, "moments.output_cls_layers.bias": np.zeros(80)}
    )
    report = convert(tmp_path / "other.ckpt", tmp_path / "y.ckpt")
    assert report.source_format == "mindspore"
    assert report.ignored == {
        "moments.output_cls_layers.bias": "state of an optimizer, not a weight"
    }
    assert_same(load_checkpoint(tmp_path / "y.ckpt")[0], parameters)


def test_training_state_is_not_exported(tmp_path):
    convert(OFFICIAL, tmp_path / "x.ckpt")
    parameters, metadata = load_checkpoint(tmp_path / "x.ckpt")
    save_checkpoint(tmp_path / "x.ckpt", {**parameters, "state.step": np.array(3)}, metadata)
    report = export_torch(tmp_path / "x.ckpt", tmp_path / "y.pth", wrap="model", half=True)
    assert report.ignored == {"state.step": "state of the training, not a weight"}
    checkpoint = read_checkpoint(tmp_path / "y.pth")
    assert checkpoint.entry == "model"
    assert checkpoint.stored_dtypes == {"float16": 371, "int64": 73}


def test_describe(tmp_path):
    info = describe(OFFICIAL)
    assert (info.format, info.family, info.model, info.num_classes) == (
        "torch-zip",
        "yolo_fastestv2",
        "yolo_fastestv2",
        80,
    )
    assert (info.tensors, info.dtypes) == (444, {"float32": 371, "int64": 73})
    convert(OFFICIAL, tmp_path / "x.ckpt")
    info = describe(tmp_path / "x.ckpt")
    assert (info.format, info.model, info.num_classes, info.tensors) == (
        "mindyolo_ext",
        "yolo_fastestv2",
        80,
        371,
    )
    assert info.metadata["source"]["sha256"] == file_sha256(OFFICIAL)
    assert "person, bicycle" in info.table()
    assert json.loads(info.to_json())["numbers"] == 251591
    write_torch_checkpoint(tmp_path / "y.pth", {"a": np.array([np.nan], np.float32)})
    assert [text.split(" (")[0] for text in describe(tmp_path / "y.pth").warnings] == [
        "1 tensors hold non-finite values: a",
        "cannot convert it: not weights of a known family",
    ]


def test_describe_onnx(tmp_path):
    onnx = pytest.importorskip("onnx")
    weight = onnx.numpy_helper.from_array(np.ones((2, 3), np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    values = [
        onnx.helper.make_tensor_value_info(name, 1, shape)
        for name, shape in (("x", [1, 2]), ("y", [1, 3]))
    ]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", values[:1], values[1:], [weight])
    )
    onnx.helper.set_model_props(model, {"model": "toy"})
    onnx.save(model, str(tmp_path / "x.onnx"))
    info = describe(tmp_path / "x.onnx")
    assert (info.format, info.tensors, info.numbers, info.dtypes) == ("onnx", 1, 6, {"float": 1})
    assert info.metadata["inputs"] == "x 1x2"
    assert info.metadata["model"] == "toy"
    (tmp_path / "x.onnx").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="not a valid ONNX file"):
        describe(tmp_path / "x.onnx")


@pytest.mark.needs_mindspore
def test_describe_mindir(tmp_path):
    from mindspore.train import mind_ir_pb2

    model = mind_ir_pb2.ModelProto(ir_version="1", model_version="2", little_endian=True)
    model.graph.name = "g"
    model.mind_ir_version = 2
    information = {"model": "toy", "num_classes": "2", "class_names": '["größe", "b"]', "": "x"}
    for key, value in information.items():
        model.user_info[key] = value
    path = tmp_path / "x.mindir"
    path.write_bytes(model.SerializeToString())
    info = describe(path)
    assert (info.format, info.model, info.num_classes) == ("mindir", "toy", 2)
    assert info.class_names == ["größe", "b"]
    assert info.metadata == information
    whole = path.read_bytes()
    for content, message in (
        (b"", "the file is empty"),
        (b"nonsense", "not a valid MindIR file"),
        (whole[:-1], "not a valid MindIR file"),
        (whole + b"\x72\x03\x0a\x01\xff", "not UTF-8"),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            describe(path)


THRESHOLDS = {
    "values": [0.5] * 11,
    "size": [640, 640],
    "lowest": 0.1,
    "highest": 0.9,
    "pictures": 5,
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("class_names", "[1]"),
        ("class_names", "[" * 100_000),
        ("thresholds", "{}"),
        ("thresholds", "x"),
        ("thresholds", json.dumps(THRESHOLDS | {"values": [10**400] * 11})),
        ("num_classes", "9" * 5000),
    ],
)
@pytest.mark.needs_mindspore
def test_broken_metadata_of_exported_files(tmp_path, key, value):
    from mindspore.train import mind_ir_pb2

    model = mind_ir_pb2.ModelProto()
    model.user_info["holds"] = "first"
    model.user_info[key] = value
    (tmp_path / "x.mindir").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match=r"x\.mindir: its metadata is broken"):
        describe(tmp_path / "x.mindir")


@pytest.mark.parametrize(
    ("model", "architecture", "message"),
    [
        ("yolo_fastestv2", {"anchors": [1] * 12}, "describes no network"),
        ("simple_yolo_resnet18", {"channel_sparsity": "x"}, "describes no network"),
        ("simple_yolo_darknet", {"channel_sparsity": 1000}, "at most 1 for a ResNet and 4 for"),
        ("yolox_nano", {"x": 1}, "unknown keyword 'x'"),
    ],
)
def test_metadata_that_describes_no_network(tmp_path, model, architecture, message):
    from mindyolo_ext.engine.build import load_model

    path = tmp_path / "x.ckpt"
    array = np.zeros(2, np.float32)
    save_checkpoint(path, {"w": array}, CheckpointMetadata(model, 2, architecture=architecture))
    with pytest.raises(CheckpointError, match=rf"x\.ckpt: .*{message}"):
        load_model(path)

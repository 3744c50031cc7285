"""The steps that are added around the network of an ONNX file."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from drawn_onnx import NAMES, draw_onnx, texts
from onnx import TensorProto, helper, numpy_helper

from mindyolo_ext.engine.onnx_graph import (
    TENSORRT_OUTPUTS,
    OnnxOptions,
    add_nms,
    add_preprocess,
    in_half,
)
from mindyolo_ext.errors import UsageError
from mindyolo_ext.evaluation.nms import NMSOptions, batched_nms
from mindyolo_ext.input_spec import InputSpec

PHOTOS = ((1, 1), (31, 17), (64, 96), (427, 640), (640, 427), (97, 500), (333, 250), (5, 900))
CONVENTIONS = [
    InputSpec(size=(64, 96), resize="stretch"),
    InputSpec(size=(64, 96), resize="stretch", color="rgb", scale=1.0),
    *(
        InputSpec(
            size=(64, 96),
            rounding=rounding,
            pad_anchor=anchor,
            scale_up=scale_up,
            mean=(0.4, 0.5, 0.6) if scale_up else (0.0, 0.0, 0.0),
            std=(0.2, 0.3, 0.4) if scale_up else (1.0, 1.0, 1.0),
        )
        for rounding in ("nearest", "down", "down_whole", "down_height", "down_twice")
        for anchor, scale_up in (("center", True), ("topleft", False))
    ),
]


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def rows_model(num_classes: int) -> onnx.ModelProto:
    """A graph whose inputs are already boxes and scores."""
    ends = (
        {"boxes_in": ["B", "A", 4], "scores_in": ["B", "A", num_classes]},
        {"boxes": ["B", "A", 4], "scores": ["B", "A", num_classes]},
    )
    values = [
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in end.items()]
        for end in ends
    ]
    nodes = [helper.make_node("Identity", [f"{name}_in"], [name]) for name in ends[1]]
    graph = helper.make_graph(nodes, "rows", *values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("num_classes", [1, 5])
def test_nms_in_the_graph_keeps_what_ours_keeps(num_classes: int):
    rng = np.random.RandomState(num_classes)
    corner = rng.uniform(0, 80, (3, 120, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(4, 40, (3, 120, 2))], 2)
    scores = rng.uniform(0, 1, (3, 120, num_classes)).astype(np.float32)
    scores[2] = 0  # an image without a box
    model = rows_model(num_classes)
    options = OnnxOptions(nms="onnx", conf_thres=0.3, iou_thres=0.5)
    add_nms(model, options, num_classes)
    (found,) = session(model).run(None, {"boxes_in": boxes.astype(np.float32), "scores_in": scores})
    wanted = batched_nms(boxes.astype(np.float32), scores, NMSOptions(0.3, 0.5))
    assert min(len(rows) for rows in wanted[:2]) > 10 and not len(wanted[2])
    assert (np.diff(found[:, 5]) <= 0).all()
    for image, rows in enumerate(wanted):
        np.testing.assert_array_equal(found[found[:, 0] == image, 1:], rows)


def test_nms_of_tensorrt_is_one_node_behind_the_network(tmp_path: Path):
    model = onnx.load(str(draw_onnx(tmp_path / "a.onnx", texts())))
    add_nms(model, OnnxOptions(nms="tensorrt", conf_thres=0.1, max_detections=7), len(NAMES))
    node = model.graph.node[-1]
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    assert (node.op_type, list(node.input)) == ("EfficientNMS_TRT", ["boxes", "scores"])
    assert attributes["max_output_boxes"] == 7 and attributes["box_coding"] == 0
    assert attributes["score_threshold"] == pytest.approx(0.1)
    shapes = [
        [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in model.graph.output
    ]
    assert [value.name for value in model.graph.output] == list(TENSORRT_OUTPUTS)
    assert shapes == [[1, 1], [1, 7, 4], [1, 7], [1, 7]]


def test_older_operators_will_do():
    """MindSpore writes opset 11."""
    model = rows_model(2)
    model.opset_import[0].version = 11
    add_nms(model, OnnxOptions(nms="onnx"), 2)
    onnx.checker.check_model(model)
    values = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 96])]
    outputs = [helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 3, 64, 96])]
    node = helper.make_node("Identity", ["images"], ["boxes"])
    for spec in (CONVENTIONS[0], CONVENTIONS[-1]):
        graph = helper.make_graph([node], "pre", values, outputs)
        old = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
        add_preprocess(old, spec)
        onnx.checker.check_model(old)


def test_sequences_have_no_float16():
    model = rows_model(2)
    model.graph.node.append(helper.make_node("SequenceConstruct", ["boxes"], ["s"]))
    with pytest.raises(UsageError, match="--half: for this model MindSpore writes sequences"):
        in_half(model)


@pytest.mark.parametrize("spec", CONVENTIONS, ids=lambda s: f"{s.resize}-{s.rounding}-{s.color}")
def test_preprocessing_in_the_graph_is_that_of_the_spec(tmp_path: Path, spec: InputSpec):
    """The canvas differs by at most a gray level and boxes by rounding, for images of any size."""
    path = draw_onnx(tmp_path / "a.onnx", texts(), size=spec.size)
    model = onnx.load(str(path))
    del model.graph.node[-1], model.graph.node[-1]  # boxes are known, scores are the input
    corners = np.array([[[10, 5, 70, 50], [-9, -9, 999, 999]]], np.float32)
    model.graph.node.extend(
        [
            helper.make_node("Identity", ["known"], ["boxes"]),
            helper.make_node("Identity", ["images"], ["scores"]),
        ]
    )
    model.graph.initializer.append(numpy_helper.from_array(corners, "known"))
    del model.graph.output[1].type.tensor_type.shape.dim[:]
    model.graph.output[1].CopyFrom(
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3, *spec.size])
    )
    add_preprocess(model, spec)
    run = session(model)
    rng = np.random.RandomState(0)
    for height, width in PHOTOS:
        photo = rng.randint(0, 256, (height, width, 3)).astype(np.uint8)
        boxes, canvas = run.run(None, {"image": photo})
        tensor, placement = spec.prepare(photo)
        level = (1 if spec.scale == 1.0 else 1 / 255) / min(spec.std)
        different = np.abs(canvas[0] - tensor) / level
        assert different.max() < 1.51 and different.mean() < 0.3, (height, width)
        np.testing.assert_allclose(
            boxes[0], placement.to_photo(corners[0]), rtol=1e-5, atol=1e-3, err_msg=f"{photo.shape}"
        )


@pytest.mark.parametrize(
    "changes", [{"shrink": "area"}, {"resample": "bicubic"}, {"border": 4, "rounding": "down"}]
)
def test_preprocessing_that_onnx_does_not_have_is_refused(tmp_path: Path, changes: dict):
    model = onnx.load(str(draw_onnx(tmp_path / "a.onnx", texts())))
    with pytest.raises(UsageError, match=f"--with_preprocess: .*{next(iter(changes))}"):
        add_preprocess(model, InputSpec(**changes))


def test_half_precision_leaves_the_decoding_alone():
    rng = np.random.RandomState(0)
    weight = rng.normal(0, 0.2, (4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["x"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Conv", ["y", "v"], ["z"]),
        helper.make_node("Mul", ["z", "large"], ["boxes"]),
    ]
    constants = {
        "w": weight,
        "v": rng.normal(0, 1, (2, 4, 1, 1)).astype(np.float32),
        "large": np.array(1024.5, np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "half",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 2, 8, 8])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    images = rng.uniform(0, 1, (1, 3, 8, 8)).astype(np.float32)
    (wanted,) = session(model).run(None, {"images": images})
    half = in_half(model)
    kinds = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert kinds["large"] == TensorProto.FLOAT and kinds["w"] == TensorProto.FLOAT16
    (found,) = session(half).run(None, {"images": images})
    assert found.dtype == np.float32 and 0 < np.abs(found - wanted).max() < 0.01 * 1024


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"nms": "fast"}, "--nms: wanted one of onnx, tensorrt"),
        ({"opset": 9}, "--opset: wanted 13 to 20, got 9"),
        ({"conf_thres": 2}, "conf_thres must be in 0..1"),
        ({"max_detections": 0}, "max_detections must be a positive integer"),
        ({"with_preprocess": True, "dynamic_batch": True}, "leave --dynamic_batch out"),
        ({"with_preprocess": True, "nms": "tensorrt"}, "leave --nms tensorrt out"),
    ],
)
def test_options_that_do_not_fit_are_refused(values: dict, wanted: str):
    with pytest.raises(UsageError, match=wanted):
        OnnxOptions(**values)

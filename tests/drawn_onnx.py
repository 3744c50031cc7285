"""Hand-made ONNX files with the metadata of ``mindyolo-ext export``, for tests of runners."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mindyolo_ext.input_spec import InputSpec

SIZE = (32, 64)  # height, width
NAMES = ["cat", "dog"]
SPEC = InputSpec(size=SIZE)


def texts(**changes: str | None) -> dict[str, str]:
    """The metadata of a complete model; a change to None removes a key."""
    values: dict[str, str | None] = {
        "mindyolo_ext": "0",
        "model": "yolox_nano",
        "num_classes": str(len(NAMES)),
        "class_names": json.dumps(NAMES),
        "input_spec": SPEC.to_json(),
        "architecture": "{}",
        "batch_size": "1",
        "outputs": "boxes,scores",
    }
    values |= changes
    return {key: value for key, value in values.items() if value is not None}


def draw_onnx(
    path: Path,
    metadata: dict[str, str],
    *,
    batch: int | str = 1,
    size: Sequence[int | str] = SIZE,
    classes: int = len(NAMES),
    extra: Sequence[onnx.NodeProto] = (),
) -> Path:
    """Write a network with two rows: all coordinates and scores are the mean of its image.

    Shape: images (B, 3, H, W) -> boxes (B, 2, 4), scores (B, 2, ``classes``).
    """
    weights = {
        "boxes_of": np.arange(1, 9, dtype=np.float32).reshape(1, 2, 4),
        "scores_of": np.linspace(0.2, 0.9, 2 * classes, dtype=np.float32).reshape(1, 2, classes),
        "axes": np.array([1, 2, 3]),
        "flat": np.array([-1, 1, 1]),
    }
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["mean"]),
        helper.make_node("Reshape", ["mean", "flat"], ["means"]),
        helper.make_node("Mul", ["means", "boxes_of"], ["boxes"]),
        helper.make_node("Mul", ["means", "scores_of"], ["scores"]),
        *extra,
    ]
    graph = helper.make_graph(
        nodes,
        "drawn",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, *size])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [batch, 2, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 2, classes]),
        ],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, str(path))
    return path

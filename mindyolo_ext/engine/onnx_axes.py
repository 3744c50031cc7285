"""Replace steps of an ONNX graph that use six axes by operators that runtimes support."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Shapes = Mapping[str, list[int]]


def four_axes(model: "ModelProto") -> "ModelProto":
    """Replace the steps through six axes by single operators.

    Nearest-neighbor doubling becomes a Resize, space-to-depth a convolution of zeros and ones. Both
    give the same numbers and make a whole network 10 to 18 % faster in ONNX Runtime. ncnn does not
    support six axes.
    """
    from onnx import helper, shape_inference

    model = shape_inference.infer_shapes(model)
    graph = model.graph
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    makers = {name: node for node in graph.node for name in node.output}
    for index, node in enumerate(list(graph.node)):
        chain = _chain(node, makers)
        replaced = chain and (_doubling(chain, shapes) or _squares(chain, shapes))
        if replaced:
            kind, weight, attributes = replaced
            name = f"four_axes{index}"
            _constant(model, name, weight)
            inputs = [chain[0].input[0], name]
            if kind == "Resize":  # older versions require a region, here an empty one
                inputs.insert(1, f"{name}_region")
                _constant(model, inputs[1], np.zeros(0, np.float32))
            graph.node.remove(node)
            graph.node.insert(
                index, helper.make_node(kind, inputs, [node.output[0]], name=name, **attributes)
            )
    _drop_unread(model)
    return model


def _chain(node: "NodeProto", makers: Mapping[str, "NodeProto"]) -> list["NodeProto"]:
    """The three nodes ending with ``node`` if they are Reshape, any operator, Reshape."""
    middle = makers.get(node.input[0]) if node.op_type == "Reshape" else None
    first = makers.get(middle.input[0]) if middle is not None and middle.input else None
    if first is None or first.op_type != "Reshape":
        return []
    return [first, middle, node]


Replaced = tuple[str, np.ndarray, dict[str, Any]]


def _doubling(chain: list["NodeProto"], shapes: Shapes) -> Replaced | None:
    """Match ``layers.resize.double``: every pixel is repeated in a 2 x 2 square."""
    before, after = (shapes.get(name, []) for name in (chain[0].input[0], chain[2].output[0]))
    if chain[1].op_type not in ("Expand", "Tile") or len(before) != 4 or len(after) != 4:
        return None
    batch, channels, height, width = before
    if after != [batch, channels, 2 * height, 2 * width]:
        return None
    if shapes.get(chain[0].output[0]) != [batch, channels, height, 1, width, 1]:
        return None
    nearest = {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    return "Resize", np.array([1, 1, 2, 2], np.float32), nearest


def _squares(chain: list["NodeProto"], shapes: Shapes) -> Replaced | None:
    """Match ``layers.resize.space_to_depth``: the pixels of each 2 x 2 square become channels."""
    orders = [list(a.ints) for a in chain[1].attribute if a.name == "perm"]
    before = shapes.get(chain[0].input[0], [])
    if chain[1].op_type != "Transpose" or orders != [[0, 5, 3, 1, 2, 4]] or len(before) != 4:
        return None
    batch, colors, height, width = before
    if shapes.get(chain[0].output[0]) != [batch, colors, height // 2, 2, width // 2, 2]:
        return None
    weight = np.zeros((2, 2, colors, colors, 2, 2), np.float32)
    for column in range(2):
        for row in range(2):
            weight[column, row, :, :, row, column] = np.eye(colors)
    return "Conv", weight.reshape(4 * colors, colors, 2, 2), {"strides": [2, 2]}


def _constant(model: "ModelProto", name: str, array: np.ndarray) -> None:
    from onnx import numpy_helper

    model.graph.initializer.append(numpy_helper.from_array(array, name))


def _drop_unread(model: "ModelProto") -> None:
    """Remove nodes whose outputs are not used."""
    read = {value.name for value in model.graph.output}
    for node in reversed(list(model.graph.node)):
        if read.isdisjoint(node.output):
            model.graph.node.remove(node)
        else:
            read.update(node.input)

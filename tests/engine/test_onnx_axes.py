"""Operations on six axes become single operators with the same results."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from mindyolo_ext.engine.onnx_axes import four_axes


def graph_of(nodes: list, constants: dict[str, list[int]], channels: int, out: list[int]):
    graph = helper.make_graph(
        nodes,
        "axes",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, channels, 4, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(np.array(v), name) for name, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def doubling() -> onnx.ModelProto:
    """As ``layers.resize.double``."""
    nodes = [
        helper.make_node("Reshape", ["x", "apart"], ["a"]),
        helper.make_node("Expand", ["a", "twice"], ["b"]),
        helper.make_node("Reshape", ["b", "together"], ["y"]),
    ]
    constants = {
        "apart": [2, 3, 4, 1, 6, 1],
        "twice": [2, 3, 4, 2, 6, 2],
        "together": [2, 3, 8, 12],
    }
    return graph_of(nodes, constants, 3, [2, 3, 8, 12])


def squares(order: tuple[int, ...] = (0, 5, 3, 1, 2, 4)) -> onnx.ModelProto:
    """As ``layers.resize.space_to_depth``."""
    nodes = [
        helper.make_node("Reshape", ["x", "apart"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=order),
        helper.make_node("Reshape", ["b", "together"], ["y"]),
    ]
    constants = {"apart": [2, 3, 2, 2, 3, 2], "together": [2, 12, 2, 3]}
    return graph_of(nodes, constants, 3, [2, 12, 2, 3])


def outputs(model: onnx.ModelProto) -> np.ndarray:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = np.random.RandomState(0).normal(0, 100, (2, 3, 4, 6)).astype(np.float32)
    return session.run(None, {"x": x})[0]


def test_both_steps_give_the_same_numbers_without_six_axes():
    for make, kind in ((doubling, "Resize"), (squares, "Conv")):
        model = four_axes(make())
        assert [node.op_type for node in model.graph.node] == [kind]
        np.testing.assert_array_equal(outputs(model), outputs(make()))


def test_other_orders_stay_as_they_are():
    model = four_axes(squares((0, 3, 5, 1, 2, 4)))
    assert [node.op_type for node in model.graph.node] == ["Reshape", "Transpose", "Reshape"]

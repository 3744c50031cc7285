"""Optional changes of an ONNX file: NMS, preprocessing, float16, simplification.

Each function changes a model in memory; ``engine.export`` compares the file with the network after
each of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from mindyolo_ext.errors import MissingPackageError, UsageError
from mindyolo_ext.evaluation.nms import NMSOptions
from mindyolo_ext.input_spec import InputSpec

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

NMS_FORMS = ("onnx", "tensorrt")
OPSETS = (13, 20)  # lowest and highest that PyTorch's exporter writes and that has every operator
DETECTIONS = "detections"
_FLOAT, _UINT8, _INT32, _INT64, _DOUBLE = 1, 2, 6, 7, 11  # ONNX's codes of element types
Nodes: TypeAlias = "list[tuple[str, str, str, dict[str, Any]]]"  # operator, inputs, outputs, attrs
TENSORRT_OUTPUTS = ("num_dets", "det_boxes", "det_scores", "det_classes")


@dataclass(frozen=True)
class OnnxOptions:
    """Options of an ONNX file; the default is a fixed batch, boxes and scores, float32.

    Args:
        dynamic_batch: accept any number of images per run.
        dynamic_size: accept any height and width that are multiples of the strides.
        nms: NMS after the network: ``onnx`` as NonMaxSuppression, ``tensorrt`` as EfficientNMS,
            which only TensorRT runs; empty for none.
        conf_thres, iou_thres, max_detections: of that NMS; the last one is per class, for
            TensorRT per image.
        with_preprocess: take one uint8 image of any size, and return boxes in its pixels.
        simplify: remove nodes that have no effect, with onnxslim.
        opset: version of the operators; None for the exporter's default.
        half: convolutions in float16; inputs, outputs and the decoding of boxes stay float32.
        int8: convolutions in 8 bits, calibrated on images; the rest as with ``half``.

    Raises: UsageError for options that contradict each other.
    """

    dynamic_batch: bool = False
    dynamic_size: bool = False
    nms: str = ""
    conf_thres: float = 0.25
    iou_thres: float = 0.45
    max_detections: int = 300
    with_preprocess: bool = False
    simplify: bool = False
    opset: int | None = None
    half: bool = False
    int8: bool = False

    def __post_init__(self) -> None:
        NMSOptions(self.conf_thres, self.iou_thres, self.max_detections)
        if self.nms and self.nms not in NMS_FORMS:
            raise UsageError(f"--nms: wanted one of {', '.join(NMS_FORMS)}, got {self.nms!r}")
        if self.opset is not None and not OPSETS[0] <= self.opset <= OPSETS[1]:
            raise UsageError(f"--opset: wanted {OPSETS[0]} to {OPSETS[1]}, got {self.opset}")
        if self.half and self.int8:
            raise UsageError("--half and --int8 are two precisions; leave one out")
        if self.with_preprocess and (self.dynamic_batch or self.nms == "tensorrt"):
            other = "--dynamic_batch" if self.dynamic_batch else "--nms tensorrt"
            raise UsageError(
                f"--with_preprocess takes one image and returns its boxes; leave {other} out"
            )
        if self.with_preprocess and self.dynamic_size:
            raise UsageError(
                "--with_preprocess resizes every image to one size; leave --dynamic_size out"
            )

    @property
    def wraps(self) -> bool:
        """Whether nodes are added before or after the network."""
        return bool(self.nms) or self.with_preprocess

    @property
    def changes(self) -> bool:
        """Whether any option differs from the default."""
        return self != OnnxOptions()


def simplified(model: "ModelProto") -> "ModelProto":
    """Remove nodes that have no effect. Raises: MissingPackageError."""
    try:
        import onnxslim
    except ImportError as error:
        raise MissingPackageError(
            "--simplify: onnxslim is not installed: `pip install 'mindyolo_ext[onnx]'`"
        ) from error
    return onnxslim.slim(model)


def in_half(model: "ModelProto") -> "ModelProto":
    """Convert the convolutions, and everything before them, to float16.

    Nodes after the last convolution decode boxes and stay float32, because the resolution of
    float16 is half a pixel at 640.

    Raises: UsageError for a graph with sequences, which MindSpore writes for some models.
    """
    if any("Sequence" in node.op_type for node in model.graph.node):
        raise UsageError(
            "--half: for this model MindSpore writes sequences, which do not support float16; "
            "export it with `--backend torch`"
        )
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    half = convert_float_to_float16(
        model,
        keep_io_types=True,
        op_block_list=list(DEFAULT_OP_BLOCK_LIST),
        node_block_list=[node.name for node in behind_convolutions(model)],
    )
    OnnxModel(half).topological_sort()  # the converter appends its casts at the end
    return half


def behind_convolutions(model: "ModelProto") -> list["NodeProto"]:
    """The nodes that no convolution depends on; unnamed nodes get names."""
    readers: dict[str, list[int]] = {}
    nodes = list(model.graph.node)
    for index, node in enumerate(nodes):
        node.name = node.name or f"node{index}"
        for name in node.input:
            readers.setdefault(name, []).append(index)
    leads = [False] * len(nodes)
    for index in range(len(nodes) - 1, -1, -1):  # nodes come after their inputs
        after = {reader for name in nodes[index].output for reader in readers.get(name, ())}
        leads[index] = nodes[index].op_type == "Conv" or any(leads[reader] for reader in after)
    return [node for node, leading in zip(nodes, leads) if not leading]


def add_nms(
    model: "ModelProto", options: OnnxOptions, num_classes: int, *, conf_thres: float | None = None
) -> None:
    """Add NMS after ``boxes`` and ``scores``.

    The form ``onnx`` returns ``detections`` (N, 7): index of the image, x1, y1, x2, y2, score,
    class, highest score first. Each box counts for its best class only, as in ``evaluation.nms``.

    Args:
        conf_thres: overrides that of the options.
    """
    confidence = options.conf_thres if conf_thres is None else conf_thres
    if options.nms == "tensorrt":
        _add_tensorrt_nms(model, options, confidence)
        return
    constants = {
        "nms_most": np.array([options.max_detections]),
        "nms_iou": np.array([options.iou_thres], np.float32),
        "nms_conf": np.array([confidence], np.float32),
        "nms_one": np.array([1]),
        "nms_classes": np.arange(num_classes).reshape(1, 1, -1),
        "nms_zero": np.array(0, np.float32),
        "nms_columns": np.array([0, 2]),
        "nms_image": np.array([0]),
        "nms_class": np.array([1]),
        "nms_flat": np.array([-1]),
    }
    _add_nodes(
        model,
        [
            ("TopK", "scores nms_one", "nms_best nms_label", {"axis": -1}),  # (B, A, 1)
            ("Equal", "nms_label nms_classes", "nms_is_best", {}),
            ("Where", "nms_is_best scores nms_zero", "nms_own", {}),
            ("Transpose", "nms_own", "nms_by_class", {"perm": [0, 2, 1]}),
            (
                "NonMaxSuppression",
                "boxes nms_by_class nms_most nms_iou nms_conf",
                "nms_kept",  # (N, 3) image, class, row
                {},
            ),
            ("Gather", "nms_kept nms_columns", "nms_rows", {"axis": 1}),
            ("GatherND", "boxes nms_rows", "nms_boxes", {}),
            ("GatherND", "nms_best nms_rows", "nms_scores", {}),  # (N, 1)
            ("Gather", "nms_kept nms_image", "nms_images", {"axis": 1}),
            ("Gather", "nms_kept nms_class", "nms_labels", {"axis": 1}),
            ("Cast", "nms_images", "nms_images32", {"to": _FLOAT}),
            ("Cast", "nms_labels", "nms_labels32", {"to": _FLOAT}),
            (
                "Concat",
                "nms_images32 nms_boxes nms_scores nms_labels32",
                "nms_unsorted",
                {"axis": 1},
            ),
            ("Reshape", "nms_scores nms_flat", "nms_keys", {}),
            ("Shape", "nms_keys", "nms_count", {}),
            ("TopK", "nms_keys nms_count", "nms_falling nms_order", {}),
            ("Gather", "nms_unsorted nms_order", DETECTIONS, {"axis": 0}),
        ],
    )
    _add_constants(model, constants)
    _set_outputs(model, {DETECTIONS: (_FLOAT, ["N", 7])})


def _add_tensorrt_nms(model: "ModelProto", options: OnnxOptions, confidence: float) -> None:
    """Add TensorRT's plugin, which returns a fixed number of rows per image and the valid count."""
    from onnx import helper

    batch = _axis(model.graph.output[0], 0)
    node = helper.make_node(
        "EfficientNMS_TRT",
        ["boxes", "scores"],
        list(TENSORRT_OUTPUTS),
        name="nms",
        domain="",
        background_class=-1,
        box_coding=0,
        iou_threshold=options.iou_thres,
        max_output_boxes=options.max_detections,
        plugin_version="1",
        score_activation=0,
        score_threshold=confidence,
    )
    model.graph.node.append(node)
    most = options.max_detections
    shapes = ([batch, 1], [batch, most, 4], [batch, most], [batch, most])
    kinds = (_INT32, _FLOAT, _FLOAT, _INT32)
    _set_outputs(model, dict(zip(TENSORRT_OUTPUTS, zip(kinds, shapes))))


def add_preprocess(model: "ModelProto", spec: InputSpec) -> None:
    """Take ``image`` (h, w, 3) uint8 BGR of any size, and return boxes in its pixels.

    The graph resizes like OpenCV, up to one gray level, and places boxes like ``InputSpec.place``.
    Like that function it computes sides in float64; float32 would be off by a pixel in some cases.

    Raises: UsageError for a convention that ONNX operators cannot express.
    """
    _check_convention(spec)
    constants: dict[str, np.ndarray] = {
        "pre_side": np.array(spec.size, np.float64),
        "pre_zero": np.array([0]),
        "pre_two": np.array([2]),
        "pre_first": np.array([0]),
        "pre_second": np.array([1]),
        "pre_channels": np.array([1, 3]),
        "pre_unit": np.array(1, np.float64),
        "pre_half": np.array(2, np.float64),
        "pre_none": np.zeros(0, np.float32),
        "pre_swap": np.array([1, 0, 1, 0]),
        "pre_least": np.array(0, np.float32),
        "pre_most": np.array(255, np.float32),
        "pre_gray": np.array(spec.pad_value, np.float32),
        "pre_nothing": np.zeros(2, np.int64),
        "pre_topleft": np.zeros(2, np.float64),
    }
    nodes: Nodes = [
        ("Shape", "image", "pre_shape", {}),
        ("Slice", "pre_shape pre_zero pre_two", "pre_photo_sides", {}),
        ("Cast", "pre_photo_sides", "pre_photo", {"to": _DOUBLE}),  # height, width
        ("Cast", "image", "pre_float", {"to": _FLOAT}),
        ("Transpose", "pre_float", "pre_planes", {"perm": [2, 0, 1]}),
        ("Concat", "pre_channels pre_photo_sides", "pre_shape4", {"axis": 0}),
        ("Reshape", "pre_planes pre_shape4", "pre_images", {}),
        *(_stretched() if spec.resize == "stretch" else _letterboxed(spec)),
        *_as_tensor(spec, constants),
    ]
    _put_before(model, nodes)
    _boxes_to_photo(model)
    _add_constants(model, constants)


def _check_convention(spec: InputSpec) -> None:
    """Raises: UsageError."""
    wrong = [
        f"{name} {value}"
        for name, value, able in (
            ("resample", spec.resample, "linear"),
            ("shrink", spec.shrink, "linear"),
            ("border", spec.border, None),
        )
        if value != able
    ]
    if wrong:
        raise UsageError(
            f"--with_preprocess: ONNX cannot prepare images in this model's convention "
            f"({', '.join(wrong)}); leave the flag out, and prepare them as input_spec says"
        )


def _stretched() -> Nodes:
    """Nodes from ``pre_images`` to ``pre_canvas`` (1, 3, H, W), and to ``pre_scales`` and
    ``pre_pads`` (height, width) for boxes.
    """
    return [
        *_resized("pre_images", "pre_side", "pre_canvas"),
        ("Div", "pre_side pre_photo", "pre_scales", {}),
        ("Identity", "pre_topleft", "pre_pads", {}),
    ]


def _letterboxed(spec: InputSpec) -> Nodes:
    """As ``_stretched``, keeping the aspect ratio of the photo."""
    nodes = _fitted(spec, "pre_images", "pre_photo", "pre_fit")
    last = "pre_fit"
    if spec.rounding == "down_twice":
        nodes += _fitted(spec, "pre_fit_image", "pre_fit_new", "pre_fit2")
        last = "pre_fit2"
    nodes.append(("Sub", f"pre_side {last}_new", "pre_free", {}))
    if spec.pad_anchor == "topleft":
        nodes += [
            ("Identity", "pre_topleft", "pre_before_float", {}),
            ("Identity", "pre_topleft", "pre_pads", {}),
        ]
    else:
        placed = "pre_middle" if spec.rounding in ("down", "down_height") else "pre_before_float"
        nodes += [
            ("Div", "pre_free pre_half", "pre_middle", {}),
            ("Floor", "pre_middle", "pre_before_float", {}),
            ("Identity", placed, "pre_pads", {}),
        ]
    nodes += [
        ("Cast", "pre_before_float", "pre_before", {"to": _INT64}),
        ("Cast", "pre_free", "pre_free_whole", {"to": _INT64}),
        ("Sub", "pre_free_whole pre_before", "pre_after", {}),
        ("Concat", "pre_nothing pre_before pre_nothing pre_after", "pre_border", {"axis": 0}),
        ("Pad", f"{last}_image pre_border pre_gray", "pre_canvas", {"mode": "constant"}),
    ]
    if spec.rounding in ("down", "down_whole"):
        return [*nodes, ("Div", f"{last}_new pre_photo", "pre_scales", {})]
    if spec.rounding == "down_height":
        return [
            *nodes,
            ("Div", f"{last}_new pre_photo", "pre_factors", {}),
            ("Gather", "pre_factors pre_first", "pre_factor", {}),
            ("Concat", "pre_factor pre_factor", "pre_scales", {"axis": 0}),
        ]
    return [*nodes, ("Concat", "pre_fit_ratio pre_fit_ratio", "pre_scales", {"axis": 0})]


def _fitted(spec: InputSpec, image: str, sides: str, name: str) -> Nodes:
    """Scale ``image`` of ``sides`` to fit the input: the result is ``name``_image, its sides
    ``name``_new and the factor ``name``_ratio.
    """
    most = "" if spec.scale_up else " pre_unit"
    return [
        ("Div", f"pre_side {sides}", f"{name}_ratios", {}),
        ("Gather", f"{name}_ratios pre_first", f"{name}_down", {}),
        ("Gather", f"{name}_ratios pre_second", f"{name}_across", {}),
        ("Min", f"{name}_down {name}_across{most}", f"{name}_ratio", {}),
        ("Mul", f"{sides} {name}_ratio", f"{name}_exact", {}),
        ("Round" if spec.rounding == "nearest" else "Floor", f"{name}_exact", f"{name}_cut", {}),
        ("Max", f"{name}_cut pre_unit", f"{name}_new", {}),
        *_resized(image, f"{name}_new", f"{name}_image"),
    ]


def _resized(image: str, sides: str, name: str) -> Nodes:
    """Resize ``image`` to ``sides`` in whole gray levels, like OpenCV's linear interpolation."""
    linear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    return [
        ("Cast", sides, f"{name}_whole", {"to": _INT64}),
        ("Concat", f"pre_channels {name}_whole", f"{name}_shape", {"axis": 0}),
        ("Resize", f"{image} pre_none pre_none {name}_shape", f"{name}_smooth", linear),
        ("Round", f"{name}_smooth", name, {}),
    ]


def _as_tensor(spec: InputSpec, constants: dict[str, np.ndarray]) -> Nodes:
    """Nodes from ``pre_canvas`` to ``images``, like ``InputSpec.to_tensor``."""
    nodes: Nodes = [("Clip", "pre_canvas pre_least pre_most", "pre_pixels", {})]
    last = "pre_pixels"
    if spec.color == "rgb":
        constants["pre_order"] = np.array([2, 1, 0])
        nodes.append(("Gather", f"{last} pre_order", "pre_rgb", {"axis": 1}))
        last = "pre_rgb"
    if spec.divides or spec.scale != 1.0:
        constants["pre_scale"] = np.array(255 if spec.divides else spec.scale, np.float32)
        nodes.append(("Div" if spec.divides else "Mul", f"{last} pre_scale", "pre_scaled", {}))
        last = "pre_scaled"
    if spec.standardizes:
        constants["pre_mean"] = np.array(spec.mean, np.float32).reshape(1, 3, 1, 1)
        constants["pre_std"] = np.array(spec.std, np.float32).reshape(1, 3, 1, 1)
        nodes += [
            ("Sub", f"{last} pre_mean", "pre_centered", {}),
            ("Div", "pre_centered pre_std", "pre_standard", {}),
        ]
        last = "pre_standard"
    return [*nodes, ("Identity", last, "images", {})]


def _put_before(model: "ModelProto", nodes: Nodes) -> None:
    """Insert ``nodes``, which turn ``image`` into ``images``, at the beginning of the graph."""
    from onnx import helper

    before = list(model.graph.node)
    del model.graph.node[:]
    _add_nodes(model, nodes)
    model.graph.node.extend(before)
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info("image", _UINT8, ["h", "w", 3]))


def _boxes_to_photo(model: "ModelProto") -> None:
    """Convert boxes (after NMS, if there is one) to pixels of the photo, clipped at its border."""
    made = [name for node in model.graph.node for name in node.output]
    boxes = "nms_boxes" if "nms_boxes" in made else "boxes"
    place = next(i for i, node in enumerate(model.graph.node) if boxes in node.output)
    outputs = model.graph.node[place].output
    outputs[list(outputs).index(boxes)] = "pre_boxes_net"
    behind = list(model.graph.node)[place + 1 :]
    del model.graph.node[place + 1 :]
    _add_nodes(
        model,
        [
            node
            for what in ("pads", "scales", "photo")
            for node in (
                ("Gather", f"pre_{what} pre_swap", f"pre_{what}4", {}),  # x, y, x, y
                ("Cast", f"pre_{what}4", f"pre_{what}_xyxy", {"to": _FLOAT}),
            )
        ]
        + [
            ("Sub", "pre_boxes_net pre_pads_xyxy", "pre_boxes_free", {}),
            ("Div", "pre_boxes_free pre_scales_xyxy", "pre_boxes_photo", {}),
            ("Max", "pre_boxes_photo pre_least", "pre_boxes_least", {}),
            ("Min", "pre_boxes_least pre_photo_xyxy", boxes, {}),
        ],
    )
    model.graph.node.extend(behind)


def _add_nodes(model: "ModelProto", nodes: Nodes) -> None:
    """Append nodes given as (operator, inputs, outputs, attributes), and name them."""
    from onnx import helper

    for kind, inputs, outputs, attributes in nodes:
        made = helper.make_node(kind, inputs.split(), outputs.split(), **attributes)
        made.name = f"{outputs.split()[0]}_{kind}"
        model.graph.node.append(made)


def _add_constants(model: "ModelProto", constants: Mapping[str, np.ndarray]) -> None:
    """Add those of ``constants`` that a node uses."""
    from onnx import numpy_helper

    read = {name for node in model.graph.node for name in node.input}
    present = {tensor.name for tensor in model.graph.initializer}
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name)
        for name, array in constants.items()
        if name in read - present
    )


def _set_outputs(
    model: "ModelProto", outputs: Mapping[str, tuple[int, Sequence[int | str]]]
) -> None:
    """Set the outputs of the graph from element type and shape by name."""
    from onnx import helper

    del model.graph.output[:]
    model.graph.output.extend(
        helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()
    )


def _axis(value: Any, axis: int) -> int | str:
    """Size or name of an axis of an input or output."""
    found = value.type.tensor_type.shape.dim[axis]
    return found.dim_param or found.dim_value

"""``mindyolo-ext convert``, ``verify`` and ``export``: exchange checkpoints with other programs."""

import argparse
import logging
import sys
from pathlib import Path

from mindyolo_ext.cli.arguments import add_size, keyword, numbers
from mindyolo_ext.cli.mindyolo import add_mindyolo, apply_mindyolo
from mindyolo_ext.cli.recipe import input_size

logger = logging.getLogger("mindyolo_ext")


def add_convert(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``convert``."""
    parser.add_argument("source", type=Path, help=".pt, .pth, .safetensors or .ckpt")
    parser.add_argument(
        "target",
        type=Path,
        help=".ckpt or .safetensors; .pth writes one of our checkpoints in the original's format",
    )
    parser.add_argument(
        "--model",
        help="one of `mindyolo-ext models` (default: recognized by the keys of the weights)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="darknet-style .data file with anchors and class names (default: COCO's, or numbers)",
    )
    parser.add_argument(
        "--anchors",
        type=numbers,
        metavar="W,H,W,H,...",
        help="anchors in pixels, finest level first (default: from --data, the file or COCO)",
    )
    parser.add_argument(
        "--names",
        type=Path,
        help="text file with one class name per line (default: from --data, the file or COCO)",
    )
    parser.add_argument(
        "--input",
        help="input that the weights were trained with (default: recognized by the weights); "
        + _input_styles(),
    )
    parser.add_argument(
        "--model_keyword",
        type=keyword,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="keyword of the model's builder that cannot be read from the weights, for example "
        "assignment=single_grid; may be given several times (default: none)",
    )
    parser.add_argument(
        "--entry",
        help="entry of the file that holds the weights, or a prefix of their names (default: the "
        "only weights in the file)",
    )
    parser.add_argument(
        "--report",
        type=Path,
        help="JSON file that lists how each tensor was converted (default: not written)",
    )
    parser.add_argument(
        "--no_ema", action="store_true", help="take the raw weights if the file holds both"
    )
    parser.add_argument(
        "--half",
        action="store_true",
        help="store the weights in float16: half the size; everything reads such checkpoints and "
        "computes in float32",
    )


def _input_styles() -> str:
    """``YOLOX: official, legacy; Gold-YOLO: usual, published``, from the families' records."""
    from mindyolo_ext.models.registry import families

    return "; ".join(
        f"{record.title}: {', '.join(record.input_styles)}"
        for record in families().values()
        if record.input_styles
    )


def convert(options: argparse.Namespace) -> None:
    """Convert ``source`` to ``target``."""
    from mindyolo_ext.checkpoint.convert import convert as run

    report = run(
        options.source,
        options.target,
        model=options.model,
        report=options.report,
        data=options.data,
        anchors=options.anchors,
        names=options.names,
        prefer_ema=not options.no_ema,
        entry=options.entry,
        input_style=options.input,
        model_keywords=dict(options.model_keyword),
        half=options.half,
    )
    logger.info("\n%s", report.table())


def add_verify(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``verify``."""
    parser.add_argument("weight", type=Path, help="converted checkpoint")
    parser.add_argument(
        "--arrays",
        type=Path,
        help="stored reference arrays, an .npz (default: --torch_repo computes them)",
    )
    parser.add_argument(
        "--images",
        type=Path,
        help="folder of the photos that --arrays were computed from (default: no photos)",
    )
    parser.add_argument(
        "--torch_repo",
        "--torch-repo",
        type=Path,
        help="clone of the original program, run for comparison (default: --arrays are compared)",
    )
    parser.add_argument(
        "--torch_python",
        "--torch-python",
        default=sys.executable,
        help="Python with torch for the original program",
    )
    parser.add_argument(
        "--source",
        type=Path,
        help="the original checkpoint (default: none; --torch_repo needs it)",
    )


def verify(options: argparse.Namespace) -> None:
    """Compare ``weight`` with reference numbers. Raises: CheckpointError if they differ."""
    from mindyolo_ext.checkpoint.verify import verify as run
    from mindyolo_ext.errors import CheckpointError

    result = run(
        options.weight,
        arrays=options.arrays,
        images=options.images,
        torch_repo=options.torch_repo,
        torch_python=options.torch_python,
        source=options.source,
    )
    logger.info("\n%s", result.table())
    if not result.passed:
        raise CheckpointError(f"verify {options.weight}: differences exceed the tolerances")


def add_export(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``export``."""
    parser.add_argument("--weight", type=Path, required=True, help="mindyolo_ext checkpoint")
    parser.add_argument(
        "--format",
        nargs="+",
        choices=["onnx", "openvino", "ncnn", "ms", "mindir", "air"],
        help="formats to write (default: onnx, and with MindSpore mindir)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="file name without suffix (default: the checkpoint's, in the same folder)",
    )
    add_size(parser, "the checkpoint's")
    parser.add_argument("--per_batch_size", type=int, default=1, help="batch size of the graph")
    parser.add_argument(
        "--raw", action="store_true", help="raw network outputs in place of boxes and scores"
    )
    parser.add_argument(
        "--parts",
        type=int,
        choices=[2, 3],
        help="number of files for a routed model; 3 puts the head of the first detector into a "
        "separate file (default: 2)",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="images whose boxes are compared before a file is saved, at most eight of them "
        "(default: two drawn ones)",
    )
    _add_onnx(parser)
    add_mindyolo(parser, "export")


def _add_onnx(parser: argparse.ArgumentParser) -> None:
    """Add the flags for variants of an ONNX file."""
    onnx = parser.add_argument_group("ONNX files")
    onnx.add_argument("--dynamic_batch", action="store_true", help="any number of images per run")
    onnx.add_argument(
        "--dynamic_size",
        action="store_true",
        help="images of any height and width that the network's strides divide",
    )
    onnx.add_argument(
        "--nms",
        nargs="?",
        const="onnx",
        default="",
        choices=["onnx", "tensorrt"],
        help="NMS in the graph: NonMaxSuppression, or TensorRT's EfficientNMS (default: none; the "
        "flag alone means onnx)",
    )
    onnx.add_argument("--conf_thres", type=float, default=0.25, help="lowest score of that NMS")
    onnx.add_argument("--iou_thres", type=float, default=0.45, help="IoU of that NMS")
    onnx.add_argument(
        "--max_detections", type=int, default=300, help="most boxes of that NMS per class"
    )
    onnx.add_argument(
        "--with_preprocess",
        action="store_true",
        help="preprocessing in the graph: takes one uint8 image of any size, returns boxes in its "
        "pixels",
    )
    onnx.add_argument(
        "--simplify", action="store_true", help="remove nodes without effect, with onnxslim"
    )
    onnx.add_argument(
        "--opset", type=int, help="opset version, 13 to 20 (default: 17 with PyTorch)"
    )
    onnx.add_argument("--half", action="store_true", help="convolutions in float16")
    onnx.add_argument(
        "--int8",
        action="store_true",
        help="convolutions in 8 bits, calibrated on up to 128 images of --images",
    )


def export(options: argparse.Namespace) -> None:
    """Write ``--weight`` in other formats and compare them with the network."""
    apply_mindyolo(options)
    from mindyolo_ext.engine.export import export as run
    from mindyolo_ext.engine.onnx_graph import OnnxOptions

    onnx = OnnxOptions(
        dynamic_batch=options.dynamic_batch,
        dynamic_size=options.dynamic_size,
        nms=options.nms,
        conf_thres=options.conf_thres,
        iou_thres=options.iou_thres,
        max_detections=options.max_detections,
        with_preprocess=options.with_preprocess,
        simplify=options.simplify,
        opset=options.opset,
        half=options.half,
        int8=options.int8,
    )
    report = run(
        options.weight,
        options.format,
        output=options.output,
        size=input_size(options),
        batch_size=options.per_batch_size,
        raw=options.raw,
        parts=options.parts,
        onnx=onnx,
        images=options.images,
    )
    logger.info("\n%s", report.table())

"""``mindyolo-ext predict``."""

import argparse
from pathlib import Path

from mindyolo_ext.cli.arguments import add_device, add_route, add_size
from mindyolo_ext.cli.mindyolo import add_mindyolo, apply_mindyolo
from mindyolo_ext.cli.recipe import input_size
from mindyolo_ext.errors import UsageError


def add_predict(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``predict``."""
    parser.add_argument(
        "source",
        nargs="*",
        help="images, videos, folders (without their sub-folders), or patterns in quotes such as "
        "'photos/**/*.jpg'",
    )
    parser.add_argument("--weight", type=Path, required=True, help="checkpoint of ours")
    add_device(parser)
    parser.add_argument("--conf_thres", type=float, default=0.3, help="lowest score of a box")
    parser.add_argument("--iou_thres", type=float, default=0.45, help="IoU of NMS")
    parser.add_argument(
        "--class_agnostic", action="store_true", help="merge boxes of different classes too"
    )
    parser.add_argument(
        "--augment",
        action="store_true",
        help="look at every image at three sizes and merge the boxes; takes about twice the time",
    )
    add_route(parser)
    add_size(parser, "the checkpoint's")
    parser.add_argument(
        "--save_dir",
        type=Path,
        metavar="DIR",
        help="folder for the results (default: runs/predict, then runs/predict2 ...); if it "
        "already holds results the next number is taken, nothing is overwritten",
    )
    add_mindyolo(parser, "predict")


def predict(options: argparse.Namespace) -> None:
    """Draw what ``--weight`` finds in the images of ``source``, and write it as JSON."""
    apply_mindyolo(options)
    if not options.source:
        raise UsageError("predict: wanted images, videos or folders: predict photos/ --weight FILE")
    from mindyolo_ext.engine.predict import Detector, find_sources, predict_sources

    find_sources(options.source)  # report a wrong path before anything is compiled
    detector = Detector(
        options.weight,
        device_target=options.device_target,
        conf_thres=options.conf_thres,
        iou_thres=options.iou_thres,
        size=input_size(options),
        class_agnostic=options.class_agnostic,
        dy_thres=options.dy_thres,
        easy=options.easy,
        augment=options.augment,
    )
    predict_sources(detector, options.source, options.save_dir)

"""``mindyolo-ext predict``."""

import argparse
from pathlib import Path

from mindyolo_ext.cli.arguments import add_device, add_route, add_runtime, add_size
from mindyolo_ext.cli.mindyolo import add_mindyolo, apply_mindyolo
from mindyolo_ext.cli.recipe import input_size
from mindyolo_ext.errors import UsageError


def add_predict(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``predict``."""
    parser.add_argument(
        "source",
        nargs="*",
        help="images, videos, folders, quoted patterns such as 'photos/**/*.jpg', .txt files with "
        "one source per line, URLs (http://, https://, rtsp:// ...), the number of a camera, or - "
        "for an image on standard input",
    )
    parser.add_argument(
        "--source",
        dest="named_source",
        nargs="+",
        default=[],
        metavar="SOURCE",
        help="same as the positional argument, as in YOLOv5 and its successors (default: none)",
    )
    parser.add_argument("--weight", type=Path, required=True, help="checkpoint or exported file")
    add_runtime(parser)
    add_device(parser)
    add_size(parser, "the checkpoint's")
    _add_boxes(parser)
    _add_sources(parser)
    _add_files(parser)


def _add_boxes(parser: argparse.ArgumentParser) -> None:
    """Add the flags that select boxes."""
    parser.add_argument("--conf_thres", type=float, default=0.3, help="minimum score of a box")
    parser.add_argument("--iou_thres", type=float, default=0.45, help="IoU threshold of NMS")
    parser.add_argument("--class_agnostic", action="store_true", help="apply NMS across classes")
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="CLASS",
        help="names or numbers of the classes to keep (default: all)",
    )
    parser.add_argument(
        "--max_det", type=int, default=300, help="maximum number of boxes per image"
    )
    parser.add_argument(
        "--augment",
        action="store_true",
        help="run every image at three sizes and merge the boxes; takes about twice the time",
    )
    add_route(parser)
    parser.add_argument(
        "--tile",
        type=int,
        metavar="PIXELS",
        help="also run larger images in tiles of this side, to find small objects (default: whole "
        "images only)",
    )
    parser.add_argument(
        "--overlap", type=float, default=0.2, help="share of a tile that overlaps the next one"
    )


def _add_sources(parser: argparse.ArgumentParser) -> None:
    """Add the flags for reading sources."""
    parser.add_argument("--recursive", action="store_true", help="search subfolders too")
    parser.add_argument(
        "--batch",
        "--per_batch_size",
        type=int,
        default=1,
        help="images or frames per batch; streams always use one",
    )
    parser.add_argument("--vid_stride", type=int, default=1, help="run every Nth frame of a video")
    parser.add_argument(
        "--track",
        choices=("bytetrack", "ocsort", "sort"),
        default="",
        help="track objects through videos and number them, with the package trackers (default: "
        "no)",
    )


def _add_files(parser: argparse.ArgumentParser) -> None:
    """Add the flags for writing and showing results."""
    parser.add_argument("--nosave", action="store_true", help="do not write annotated copies")
    parser.add_argument(
        "--save_txt", action="store_true", help="labels/NAME.txt: class cx cy w h score, in 0..1"
    )
    parser.add_argument(
        "--save_crop", action="store_true", help="crops/CLASS/NAME_K.jpg: the image inside each box"
    )
    parser.add_argument(
        "--save_json", action="store_true", help="coco.json: all boxes as a COCO data set"
    )
    parser.add_argument(
        "--show",
        action="store_true",
        help="show results in a window; any key shows the next image, q quits",
    )
    parser.add_argument(
        "--save_dir",
        type=Path,
        metavar="DIR",
        help="folder for the results (default: runs/predict, then runs/predict2 ...); a folder "
        "that already holds results gets the next number, so nothing is overwritten",
    )
    add_mindyolo(parser, "predict")


def predict(options: argparse.Namespace) -> None:
    """Detect objects in ``source`` with ``--weight``; draw the boxes and write them as JSON."""
    apply_mindyolo(options)
    sources = [*options.source, *options.named_source]
    if not sources:
        raise UsageError("predict: wanted images, videos or folders: predict photos/ --weight FILE")
    from mindyolo_ext.engine.predict import Detector, PredictOptions, predict_sources
    from mindyolo_ext.engine.predict_job import checked_sources

    wanted = PredictOptions(
        save_images=not options.nosave,
        save_txt=options.save_txt,
        save_crop=options.save_crop,
        save_json=options.save_json,
        recursive=options.recursive,
        vid_stride=options.vid_stride,
        track=options.track,
        track_conf=options.conf_thres,
        batch=options.batch,
        show=options.show,
    )
    checked_sources(sources, wanted)  # report a wrong path before the model loads
    detector = Detector(
        options.weight,
        device_target=options.device_target,
        runtime=options.runtime,
        conf_thres=options.conf_thres,
        iou_thres=options.iou_thres,
        size=input_size(options),
        class_agnostic=options.class_agnostic,
        classes=options.classes,
        max_detections=options.max_det,
        batch=options.batch,
        tile=options.tile,
        overlap=options.overlap,
        dy_thres=options.dy_thres,
        easy=options.easy,
        augment=options.augment,
    )
    predict_sources(detector, sources, options.save_dir, wanted)

"""``mindyolo-ext predict``."""

import argparse
from pathlib import Path

from mindyolo_ext.cli.arguments import add_device, add_route, add_runtime, add_size
from mindyolo_ext.cli.mindyolo import add_mindyolo, apply_mindyolo
from mindyolo_ext.cli.recipe import input_size
from mindyolo_ext.errors import UsageError


def add_predict(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``predict``."""
    parser.add_argument(
        "source",
        nargs="*",
        help="images, videos, folders, patterns in quotes such as 'photos/**/*.jpg', .txt files "
        "with a source per line, addresses (http://, https://, rtsp:// ...), the number of a "
        "camera, or - for an image on standard input",
    )
    parser.add_argument(
        "--source",
        dest="named_source",
        nargs="+",
        default=[],
        metavar="SOURCE",
        help="the same, as YOLOv5 and its successors have it (default: none)",
    )
    parser.add_argument("--weight", type=Path, required=True, help="checkpoint or exported file")
    add_runtime(parser)
    add_device(parser)
    add_size(parser, "the checkpoint's")
    _add_boxes(parser)
    _add_sources(parser)
    _add_files(parser)


def _add_boxes(parser: argparse.ArgumentParser) -> None:
    """Which boxes are wanted."""
    parser.add_argument("--conf_thres", type=float, default=0.3, help="lowest score of a box")
    parser.add_argument("--iou_thres", type=float, default=0.45, help="IoU of NMS")
    parser.add_argument(
        "--class_agnostic", action="store_true", help="merge boxes of different classes too"
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="CLASS",
        help="names or numbers of the classes that are wanted (default: all)",
    )
    parser.add_argument("--max_det", type=int, default=300, help="most boxes per image")
    parser.add_argument(
        "--augment",
        action="store_true",
        help="look at every image at three sizes and merge the boxes; takes about twice the time",
    )
    add_route(parser)
    parser.add_argument(
        "--tile",
        type=int,
        metavar="PIXELS",
        help="look at larger images in tiles of this side as well, for small objects (default: as "
        "a whole only)",
    )
    parser.add_argument(
        "--overlap", type=float, default=0.2, help="share of a tile that the next one sees as well"
    )


def _add_sources(parser: argparse.ArgumentParser) -> None:
    """How sources are read."""
    parser.add_argument(
        "--recursive", action="store_true", help="look into the folders inside folders as well"
    )
    parser.add_argument(
        "--batch",
        "--per_batch_size",
        type=int,
        default=1,
        help="images or frames that the network takes at once; of streams always one",
    )
    parser.add_argument(
        "--vid_stride", type=int, default=1, help="look at every so many-th frame of a video"
    )
    parser.add_argument(
        "--track",
        choices=("bytetrack", "ocsort", "sort"),
        default="",
        help="follow objects through videos and number them, with the package trackers (default: "
        "no)",
    )


def _add_files(parser: argparse.ArgumentParser) -> None:
    """What becomes of the results."""
    parser.add_argument("--nosave", action="store_true", help="write no annotated copies")
    parser.add_argument(
        "--save_txt", action="store_true", help="labels/NAME.txt: class cx cy w h score, in 0..1"
    )
    parser.add_argument(
        "--save_crop", action="store_true", help="crops/CLASS/NAME_K.jpg: the image in each box"
    )
    parser.add_argument(
        "--save_json", action="store_true", help="coco.json: the boxes as a COCO data set"
    )
    parser.add_argument(
        "--show",
        action="store_true",
        help="open a window; a key goes on to the next image, q ends",
    )
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
    checked_sources(sources, wanted)  # a wrong path is told at once
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

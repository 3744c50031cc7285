"""``mindyolo-ext serve``."""

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from mindyolo_ext.cli.arguments import add_device, add_route, add_runtime, add_size
from mindyolo_ext.cli.recipe import input_size
from mindyolo_ext.errors import MissingPackageError

if TYPE_CHECKING:
    from mindyolo_ext.engine.predict import Detector

_PACKAGES = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
}


def add_serve(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``serve``."""
    parser.add_argument("--weight", type=Path, required=True, help="checkpoint or exported file")
    add_runtime(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 127.0.0.1 is this machine only, 0.0.0.0 is the whole network",
    )
    parser.add_argument("--port", type=int, default=8000, help="port; 0 picks a free one")
    add_device(parser)
    parser.add_argument(
        "--conf_thres", type=float, default=0.3, help="minimum score if a request sets none"
    )
    parser.add_argument(
        "--iou_thres", type=float, default=0.45, help="IoU of NMS if a request sets none"
    )
    parser.add_argument("--class_agnostic", action="store_true", help="apply NMS across classes")
    add_route(parser)
    add_size(parser, "the checkpoint's")
    _add_limits(parser)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the limits of the server."""
    parser.add_argument(
        "--max_body", type=float, default=16.0, metavar="MIB", help="largest request, MiB"
    )
    parser.add_argument(
        "--max_pixels",
        type=float,
        default=50.0,
        metavar="MILLIONS",
        help="largest image, millions of pixels",
    )
    parser.add_argument(
        "--queue",
        type=int,
        default=64,
        metavar="N",
        help="maximum number of requests in progress or waiting; further ones get status 503",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=1,
        metavar="N",
        help="maximum batch size when several images wait",
    )
    parser.add_argument(
        "--timeout", type=float, default=30.0, metavar="SECONDS", help="time limit of a request"
    )


def serve(options: argparse.Namespace) -> None:
    """Detect objects in images sent over HTTP until Ctrl-C or SIGTERM."""
    missing = [name for module, name in _PACKAGES.items() if not importlib.util.find_spec(module)]
    if missing:
        raise MissingPackageError(
            f"serve: requires {', '.join(missing)}: pip install 'mindyolo_ext[serve]', or -e "
            "'.[serve]' in a clone"
        )
    from mindyolo_ext.serve.limits import Limits
    from mindyolo_ext.serve.run import open_address

    limits = Limits(
        body_mib=options.max_body,
        megapixels=options.max_pixels,
        queue=options.queue,
        answer_seconds=options.timeout,
        open_images=max(Limits.open_images, 2 * options.batch),
    )
    with open_address(options.host, options.port) as opened:  # fails early if the port is in use
        from mindyolo_ext.serve.app import create_app
        from mindyolo_ext.serve.run import allowed_hosts, greeting, run

        detector = _detector(options)
        app = create_app(detector, limits, hosts=allowed_hosts(options.host))
        about = f"{detector.metadata.model}, {len(detector.class_names)} classes"
        run(app, opened, limits, f"{about}: {greeting(opened, options.host)}")


def _detector(options: argparse.Namespace) -> "Detector":
    """Build the detector, compiled for one image and for a batch."""
    import numpy as np

    from mindyolo_ext.engine.predict import Detector

    detector = Detector(
        options.weight,
        runtime=options.runtime,
        device_target=options.device_target,
        conf_thres=options.conf_thres,
        iou_thres=options.iou_thres,
        size=input_size(options),
        class_agnostic=options.class_agnostic,
        batch=options.batch,
        dy_thres=options.dy_thres,
        easy=options.easy,
    )
    blank = np.zeros((*detector.input_spec.size, 3), np.uint8)
    detector.predict(blank)
    if options.batch > 1:
        detector.predict([blank] * options.batch)
    return detector

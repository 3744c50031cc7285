"""Times exported files against the PyTorch backend that they were exported from, and writes the
ratios into a Markdown file.

    MINDYOLO_EXT_BACKEND=torch python benchmarks/runtimes.py [CASE ...] [--weights FOLDER]
        [--repeats 7] [--out docs/benchmarks.md]

Both sides are predictors as ``Detector`` has them, in one process and on one thread: uint8 images
in, boxes and scores out. They take turns, and the processor's time of this process counts, so other
programs disturb little. Weights are drawn, but those of ``NMS``, which needs boxes: it takes
``yolo_fastestv2.ckpt`` and ``yolox_nano.ckpt`` of ``--weights``.
"""

import argparse
import datetime
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "MINDYOLO_EXT_BACKEND": "torch"}
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import torch  # noqa: E402
from measuring import Meter, Row, Section, processor_name, write_sections  # noqa: E402

from mindyolo_ext.backend.launch import set_seed  # noqa: E402
from mindyolo_ext.backend.parameters import parameter_values  # noqa: E402
from mindyolo_ext.checkpoint.metadata import CheckpointMetadata  # noqa: E402
from mindyolo_ext.checkpoint.store import save_checkpoint  # noqa: E402
from mindyolo_ext.class_names import COCO_NAMES  # noqa: E402
from mindyolo_ext.data.shapes import draw_shapes  # noqa: E402
from mindyolo_ext.engine.export import export  # noqa: E402
from mindyolo_ext.engine.network import load_network  # noqa: E402
from mindyolo_ext.engine.onnx_graph import OnnxOptions  # noqa: E402
from mindyolo_ext.evaluation.nms import NMSOptions, nms  # noqa: E402
from mindyolo_ext.models.registry import create_model  # noqa: E402

logger = logging.getLogger("benchmarks")
Call = Callable[[], object]
# model -> (height, width); what a routed one does is named by the threshold
MODELS = {
    "yolo_fastestv2": (352, 352),
    "yolox_s": (640, 640),
    "gold_yolo_n": (640, 640),
    "gold_yolo_s": (640, 640),
    "simple_yolo_resnet18": (512, 512),
    "dy_yolov7": (640, 640),
}
ROUTES = {"easy images": 0.0, "hard images": 1.0}
CONFIDENCES = (0.25, 0.01)
SHARES: list[float] = []


def main() -> None:
    """Measure the cases asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join((*MODELS, 'NMS', 'ncnn'))}")
    parser.add_argument("--weights", type=Path, help="folder with the checkpoints that NMS needs")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    options = parser.parse_args()
    logging.basicConfig(level="WARNING", stream=sys.stdout, format="%(message)s")
    logger.setLevel("INFO")
    torch.set_num_threads(1)
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:1]))
    for case in options.cases or (*MODELS, "NMS", "ncnn"):
        SHARES.clear()
        with tempfile.TemporaryDirectory(prefix="benchmark_") as folder:
            rows = _rows(case, options, Path(folder))
        write_sections(options.out, [Section(f"runtimes_{case}", rows, [], _conditions(options))])


def _rows(case: str, options: argparse.Namespace, folder: Path) -> list[Row]:
    if case == "NMS":
        return _nms_rows(options, folder)
    if case == "ncnn":
        return [_ncnn_row(options, folder)]
    weight = _drawn(case, folder)
    return [row for batch in options.batches for row in _model_rows(case, weight, batch, options)]


def _drawn(name: str, folder: Path) -> Path:
    """A checkpoint of drawn weights."""
    set_seed(0)
    model = create_model(name)
    path = folder / f"{name}.ckpt"
    metadata = CheckpointMetadata(name, 80, COCO_NAMES, model.input_spec, dict(model.architecture))
    save_checkpoint(path, parameter_values(model), metadata)
    return path


def _model_rows(name: str, weight: Path, batch: int, options: argparse.Namespace) -> list[Row]:
    """ONNX Runtime against PyTorch, per route if there are several."""
    size, is_routed = MODELS[name], name.startswith("dy_")
    target = weight.with_name(f"{name}-{batch}")
    parts = 3 if is_routed else None
    files = export(weight, ["onnx"], output=target, size=size, batch_size=batch, parts=parts).files
    images = np.stack([draw_shapes(np.random.default_rng(i), size)[0] for i in range(batch)])
    rows = []
    for route, threshold in (ROUTES if is_routed else {"": None}).items():
        first = next(iter(files.values()))
        ours = load_network(first, threads=1, dy_thres=threshold).predictor
        theirs = load_network(weight, device_target="CPU", size=size, dy_thres=threshold).predictor
        what = ", ".join(filter(None, (name, f"{size[0]} x {size[1]}", f"batch {batch}", route)))
        what += ", ONNX Runtime / PyTorch"
        rows.append(_paired(what, partial(ours, images), partial(theirs, images), options))
    return rows


def _nms_rows(options: argparse.Namespace, folder: Path) -> list[Row]:
    """NMS in the graph against the network's boxes and ours behind it, on an image."""
    rows = []
    for name in ("yolo_fastestv2", "yolox_nano"):
        weight = options.weights / f"{name}.ckpt"
        plain = _session(export(weight, ["onnx"], output=folder / name).files["onnx"])
        image = load_network(weight).predictor.input_spec.prepare(_photo(options))[0][None]
        for confidence in CONFIDENCES:
            inside = OnnxOptions(nms="onnx", conf_thres=confidence)
            path = export(weight, ["onnx"], output=folder / "inside", onnx=inside).files["onnx"]
            ours = partial(_rows_inside, _session(path), image)
            behind = partial(_rows_behind, plain, image, NMSOptions(confidence, inside.iou_thres))
            what = f"{name}, confidence {confidence:g}, NMS in the graph / ours behind it"
            row = _paired(what, ours, behind, options)
            row.note = f"{len(ours())} and {len(behind())} boxes"
            rows.append(row)
    return rows


def _rows_inside(session: onnxruntime.InferenceSession, image: np.ndarray) -> np.ndarray:
    return session.run(None, {"images": image})[0]


def _rows_behind(
    session: onnxruntime.InferenceSession, image: np.ndarray, limits: NMSOptions
) -> np.ndarray:
    boxes, scores = session.run(None, {"images": image})
    return nms(boxes[0], scores[0], limits)


def _photo(options: argparse.Namespace) -> np.ndarray:
    """An image of ``--weights``, or a drawn one."""
    import cv2

    for path in sorted(options.weights.glob("*.jpg")):
        return cv2.imread(str(path))
    return draw_shapes(np.random.default_rng(0), (416, 640))[0]


def _session(path: Path) -> onnxruntime.InferenceSession:
    """An ONNX file on one thread."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


def _ncnn_row(options: argparse.Namespace, folder: Path) -> Row:
    """ncnn against ONNX Runtime, Yolo-FastestV2, one thread each."""
    weight = _drawn("yolo_fastestv2", folder)
    files = export(weight, ["onnx", "ncnn"]).files
    onnx, ncnn = (load_network(files[kind], threads=1).predictor for kind in ("onnx", "ncnn"))
    image = draw_shapes(np.random.default_rng(0), MODELS["yolo_fastestv2"])[0][None]
    what = "yolo_fastestv2, 352 x 352, batch 1, ncnn / ONNX Runtime"
    return _paired(what, partial(ncnn, image), partial(onnx, image), options)


def _paired(what: str, ours: Call, theirs: Call, options: argparse.Namespace) -> Row:
    """Seconds of the processor per call, in turns."""
    counts = {call: max(1, min(50, round(0.3 / _seconds(call, 2)))) for call in (ours, theirs)}
    row = Row(what, [], [], target=0.75 if "PyTorch" in what else None)
    for _ in range(options.repeats):
        meter = Meter()
        row.ours.append(_seconds(ours, counts[ours]))
        row.peer.append(_seconds(theirs, counts[theirs]))
        SHARES.append(meter.share())
    logger.info("%s", " | ".join(row.cells()))
    return row


def _seconds(call: Call, count: int) -> float:
    """Of the processor, per call."""
    begin = time.process_time()
    for _ in range(count):
        call()
    return (time.process_time() - begin) / count


def _conditions(options: argparse.Namespace) -> str:
    return (
        f"{datetime.date.today()}; {processor_name()}, one thread, processor time; "
        f"{options.repeats} pairs, in which other programs took {min(SHARES):.0%} to "
        f"{max(SHARES):.0%} of the machine; PyTorch {torch.__version__}, ONNX Runtime "
        f"{onnxruntime.__version__}."
    )


if __name__ == "__main__":
    main()

"""Find objects with the ONNX files of a routed model: hard pictures alone go through the second
detector.

    python deploy/routed_runtime.py NAME-first.onnx NAME-second.onnx PICTURE_OR_FOLDER ... [--easy
    0.9]

The files are those that one ``mindyolo-ext export`` wrote, two or three of them, in any order. All
else is as in ``onnx_runtime.py``.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from onnx_runtime import OnnxFile, find_pictures, photo_rows, read_pictures, show

from mindyolo_ext.engine.sources import Output
from mindyolo_ext.errors import shown
from mindyolo_ext.evaluation.nms import NMSOptions
from mindyolo_ext.evaluation.routing import checked_threshold, is_hard, threshold_for


class RoutedOnnxDetector:
    """The files of a routed model ready to look at pictures.

    Args:
        paths: the ``.onnx`` files of one export.
        conf_thres, iou_thres: as ``OnnxDetector``.
        dy_thres: pictures whose easiness is below it take the second detector; None takes the one
            in the file.
        easy: share of easy pictures to aim at, instead of ``dy_thres``; the thresholds in the file
            tell which threshold that is.
        threads: of ONNX Runtime, 0 for its own choice.

    Attributes: ``easiness`` of the pictures of the last call; ``hard``: which of them took the
        second detector.
    Raises: FileNotFoundError; ValueError for files that do not belong together, and for a threshold
        that they do not have.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        conf_thres: float = 0.3,
        iou_thres: float = 0.45,
        dy_thres: float | None = None,
        easy: float | None = None,
        threads: int = 0,
    ):
        files = [OnnxFile(path, threads=threads) for path in paths]
        check_set(files)
        self.parts = {file.part: file for file in files}
        self.entry = next(file for file in files if file.inputs == ["images"])
        self.input_spec, self.class_names = self.entry.input_spec, self.entry.class_names
        self.batch_size = self.entry.batch_size
        self.dy_thres = choose_threshold(self.entry, dy_thres, easy)
        self.options = NMSOptions(conf_thres=conf_thres, iou_thres=iou_thres)
        self.easiness, self.hard = np.zeros(0, np.float32), np.zeros(0, bool)

    def predict(self, image: np.ndarray) -> np.ndarray:
        """As ``OnnxDetector.predict``."""
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Boxes of up to ``batch_size`` pictures, uint8 BGR (h, w, 3) each -> (N, 6) each, as
        ``predict``.

        The first file works on the batch, the others on one picture after the other. A batch that
        is not full is filled up with its last picture, whose further results nobody reads.

        Raises: ValueError for another number of pictures.
        """
        if not 1 <= len(images) <= self.batch_size:
            raise ValueError(
                f"predict_batch: the files take 1 to {self.batch_size} pictures, got {len(images)}"
            )
        tensors, placements = zip(*(self.input_spec.prepare(image) for image in images))
        fill = [tensors[-1]] * (self.batch_size - len(images))
        arrays = {"images": np.stack([*tensors, *fill])}
        arrays |= self.entry.run(arrays)
        easiness = arrays["easiness"][: len(images)]
        hard = is_hard(easiness, self.dy_thres)
        self.easiness, self.hard = easiness, hard  # of the last call, of whichever thread
        found = (self._exit(arrays, row, bool(hard[row])) for row in range(len(images)))
        return [
            photo_rows(*pair, self.options, placement) for pair, placement in zip(found, placements)
        ]

    def _exit(
        self, arrays: Mapping[str, np.ndarray], row: int, hard: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (A, 4) and scores (A, K) of picture ``row`` of the batch by its own exit."""
        part = self.parts["second" if hard else "first"]
        own = {name: array[row : row + 1] for name, array in arrays.items()}
        found = own if part is self.entry else part.run(own)
        return found["boxes"][0], found["scores"][0]


def check_set(files: Sequence[OnnxFile]) -> None:
    """Make sure that ``files`` are all the parts of one export, each once. Raises: ValueError."""
    for file in files:
        if not file.part:
            raise ValueError(
                f"{file.path}: holds a whole model, not a part of a routed one; run it with "
                f"`python deploy/onnx_runtime.py {file.path} PICTURE`"
            )
    first = files[0]
    for file in files[1:]:
        if file.metadata["pair"] != first.metadata["pair"]:
            raise ValueError(
                f"{file.path} (export {file.metadata['pair']}) and {first.path} (export "
                f"{first.metadata['pair']}) do not belong together; wanted the files of one export"
            )
    wanted = json.loads(first.metadata["files"])
    if sorted(file.part for file in files) != sorted(wanted):
        raise ValueError(
            f"got the parts {', '.join(file.part for file in files)} of a routed model; wanted "
            f"each of {', '.join(wanted)} once ({' '.join(wanted.values())})"
        )


def choose_threshold(entry: OnnxFile, dy_thres: float | None, easy: float | None) -> float:
    """The threshold that ``dy_thres`` or ``easy`` asks for, else the file's default.

    Raises: ValueError if both are given, one is outside 0..1, or the file holds no thresholds for
    ``easy``.
    """
    if dy_thres is not None and easy is not None:
        raise ValueError("dy_thres and easy exclude each other; set only one")
    if easy is None:
        return checked_threshold(
            float(entry.metadata["dy_thres"]) if dy_thres is None else dy_thres
        )
    stored = json.loads(entry.metadata["thresholds"])
    if 0 < easy < 1 and not stored:
        raise ValueError(
            f"{entry.path}: holds no thresholds, so the one for {100 * easy:g} % easy images is "
            "unknown; measure them with `mindyolo-ext thresholds` and export the checkpoint again"
        )
    return threshold_for(easy, stored or {})


def annotate(
    detector: RoutedOnnxDetector, outputs: Sequence[Output], folder: Path
) -> Iterator[tuple[bool, float]]:
    """Annotate pictures into a folder and print the boxes; for each whether it was hard, and its
    milliseconds.
    """
    readable = read_pictures(outputs)
    while batch := list(itertools.islice(readable, detector.batch_size)):
        images = [image for _, image in batch]
        begin = time.perf_counter()
        found = detector.predict_batch(images)
        spent = (time.perf_counter() - begin) * 1e3 / len(batch)
        for (output, image), rows, easiness, hard in zip(
            batch, found, detector.easiness, detector.hard
        ):
            show(
                image,
                rows,
                detector.class_names,
                folder / output.target,
                f"{shown(str(output.path), 300)}: {len(rows)} boxes, "
                f"{'hard' if hard else 'easy'} ({easiness:.4f}), {spent:.1f} ms",
            )
            yield bool(hard), spent


def main() -> None:
    """Annotate pictures into a folder, print the boxes and how the pictures were routed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help=".onnx files, then pictures or folders"
    )
    parser.add_argument("--save_dir", type=Path, default=Path("runs/onnx"))
    parser.add_argument("--conf_thres", type=float, default=0.3)
    parser.add_argument("--iou_thres", type=float, default=0.45)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--dy_thres",
        type=float,
        metavar="T",
        help="pictures whose easiness is below T take the second "
        "detector; 0 sends all to the first, 1 all to the second",
    )
    which.add_argument(
        "--easy",
        type=float,
        metavar="SHARE",
        help="share of easy pictures to aim at, in 0..1, by the thresholds in the files",
    )
    options = parser.parse_args()
    models = [path for path in options.files if path.suffix == ".onnx"]
    places = [path for path in options.files if path.suffix != ".onnx"]
    if not models or not places:
        parser.error("wanted .onnx files, then pictures or folders")
    try:
        detector = RoutedOnnxDetector(
            models,
            conf_thres=options.conf_thres,
            iou_thres=options.iou_thres,
            dy_thres=options.dy_thres,
            easy=options.easy,
        )
        outputs, folder = find_pictures(places, options.save_dir)
        routed = np.array(list(annotate(detector, outputs, folder)))
        share, spent = 1 - routed[:, 0].mean(), routed[:, 1].mean()
        print(
            f"{len(routed)} pictures, {100 * share:.1f} % easy at threshold "
            f"{detector.dy_thres:.6f}, {spent:.1f} ms "
            "per picture on average"
        )
    except (ValueError, OSError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()

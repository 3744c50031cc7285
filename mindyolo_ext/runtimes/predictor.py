"""Exported networks as predictors, with the same interface as a network of the framework."""

import threading
import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import DTypeLike

from mindyolo_ext.errors import CheckpointError, UsageError
from mindyolo_ext.evaluation.routing import PartMeter, checked_threshold, is_hard
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.runtimes.file import DETECTIONS, ExportedFile
from mindyolo_ext.runtimes.session import Arrays, Session

Found = tuple[np.ndarray, np.ndarray]


class ExportedPredictor:
    """A whole model in one file, as a ``contracts.Predictor``.

    A file with a fixed batch runs several times for a larger batch, and pads a smaller one.

    Args:
        file: metadata of the file.
        session: the opened file.
        input_spec: how images become its input.

    Raises: CheckpointError if the network has other inputs or outputs than its metadata says;
        UsageError for an input size that it does not take.
    """

    def __init__(self, file: ExportedFile, session: Session, input_spec: InputSpec):
        self.input_spec = input_spec
        self.num_classes = file.metadata.num_classes
        self._session, self._has_nms = session, file.outputs == DETECTIONS
        self._path = file.path
        check_ends(file, session, ("detections",) if self._has_nms else ("boxes", "scores"))
        self._batch, _, *self._size = session.inputs["images"]
        self.compile((1, *input_spec.size, 3), np.uint8)

    def __call__(self, images: np.ndarray) -> Found:
        """As ``contracts.Predictor``."""
        self.compile(images.shape, images.dtype)
        tensors = as_tensors(images, self.input_spec)
        step = self._batch or max(len(tensors), 1)
        found = [
            self._run(filled(tensors[i : i + step], step)) for i in range(0, len(tensors), step)
        ]
        if not found:
            return np.zeros((0, 0, 4), np.float32), np.zeros((0, 0, self.num_classes), np.float32)
        boxes, scores = (joined(arrays)[: len(tensors)] for arrays in zip(*found))
        return boxes, scores

    def compile(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> bool:
        """Make sure that the file takes inputs of ``shape``; there is nothing to compile.

        Raises: UsageError if it does not.
        """
        size = shape[1:3] if np.dtype(dtype) == np.uint8 else shape[2:4]
        if any(own is not None and own != side for own, side in zip(self._size, size)):
            own_size = " ".join(str(side) for side in self._size)
            raise UsageError(
                f"{self._path}: takes only images of {'x'.join(map(str, self._size))} pixels, got "
                f"{'x'.join(map(str, size))}; use --img_size {own_size} (and --rectangular False), "
                f"or export it with --img_size {size[0]} {size[1]}"
            )
        if any(side % self.input_spec.stride for side in size):
            raise UsageError(
                f"{self._path}: takes sides of multiples of {self.input_spec.stride} pixels, got "
                f"{'x'.join(map(str, size))}"
            )
        return False

    def _run(self, tensors: np.ndarray) -> Found:
        """Return boxes and scores of one full batch of the file."""
        arrays = self._session.run({"images": tensors})
        if self._has_nms:
            return spread(arrays["detections"], len(tensors), self.num_classes, self._path)
        return checked_outputs(arrays, len(tensors), self.num_classes, self._path)


class RoutedExportedPredictor:
    """The parts of a routed model, as a ``contracts.RoutingPredictor``.

    The entry runs on the batch, the exits on one image after the other.

    Args:
        files, sessions: by part: ``first``, ``second`` and possibly ``router``.
        input_spec: how images become its input.
        dy_thres: images with a lower easiness take the second exit; None takes the files' value.

    Raises: as ``ExportedPredictor``; UsageError for a threshold outside 0..1.
    """

    def __init__(
        self,
        files: Mapping[str, ExportedFile],
        sessions: Mapping[str, Session],
        input_spec: InputSpec,
        *,
        dy_thres: float | None = None,
    ):
        self._entry = "router" if "router" in files else "first"
        entry = files[self._entry]
        for part, file in files.items():
            exits = () if part == "router" else ("boxes", "scores")
            check_ends(file, sessions[part], exits, is_entry=part == self._entry)
        stored = 0.5 if entry.dy_thres is None else entry.dy_thres
        self.dy_thres = checked_threshold(stored if dy_thres is None else dy_thres)
        self.input_spec, self.num_classes = input_spec, entry.metadata.num_classes
        self.easiness = np.zeros(0, np.float32)
        self._sessions, self._path = sessions, entry.path
        self._batch, _, *self._size = sessions[self._entry].inputs["images"]
        self._lock = threading.Lock()
        self.reset()
        self.compile((1, *input_spec.size, 3), np.uint8)

    compile = ExportedPredictor.compile

    def __call__(self, images: np.ndarray, valid: int | None = None) -> Found:
        """As ``contracts.RoutingPredictor``."""
        count = len(images) if valid is None else valid
        if count == 0:
            shape = len(images), 0
            return np.zeros((*shape, 4), np.float32), np.zeros(
                (*shape, self.num_classes), np.float32
            )
        with self._lock:  # ``easiness`` is state of one call
            arrays = self.glance(images[:count])
            hard = is_hard(self.easiness, self.dy_thres)
            found = [self._exit(arrays, row, hard=bool(hard[row])) for row in range(count)]
        boxes, scores = (np.concatenate(both) for both in zip(*found))
        return filled(boxes, len(images), blank=True), filled(scores, len(images), blank=True)

    def glance(self, images: np.ndarray) -> Arrays:
        """Run the entry and set ``easiness``. Return its outputs and the images by name."""
        self.compile(images.shape, images.dtype)
        tensors = as_tensors(images, self.input_spec)
        step = self._batch or len(tensors)
        pieces = []
        for i in range(0, len(tensors), step):
            own = {"images": filled(tensors[i : i + step], step)}
            pieces.append(
                {**own, **self._timed("glance", self._entry, own, len(tensors[i : i + step]))}
            )
        arrays = {
            name: np.concatenate([piece[name] for piece in pieces])[: len(tensors)]
            for name in pieces[0]
        }
        self.easiness = arrays["easiness"].astype(np.float32)
        return arrays

    def reset(self) -> None:
        """Reset the meters."""
        self.meters = {part: PartMeter() for part in ("glance", "first", "second")}

    def _exit(self, arrays: Arrays, row: int, *, hard: bool) -> Found:
        """Return boxes (1, A, 4) and scores (1, A, K) of image ``row`` from its exit."""
        part = "second" if hard else "first"
        own = {name: array[row : row + 1] for name, array in arrays.items()}
        if part != self._entry:
            own = self._timed(part, part, own, 1)
        else:
            self.meters[part].images += 1
        return checked_outputs(own, 1, self.num_classes, self._path)

    def _timed(self, meter: str, part: str, arrays: Arrays, images: int) -> Arrays:
        begin = time.perf_counter()
        found = self._sessions[part].run(arrays)
        self.meters[meter].seconds += time.perf_counter() - begin
        self.meters[meter].images += images
        return found


def as_tensors(images: np.ndarray, spec: InputSpec) -> np.ndarray:
    """uint8 BGR (B, H, W, 3) -> (B, 3, H, W) float32 in the convention of ``spec``, as which any
    other array is taken.
    """
    if images.dtype != np.uint8:
        return np.ascontiguousarray(images, np.float32)
    return np.stack([spec.to_tensor(image) for image in images]) if len(images) else images


def filled(arrays: np.ndarray, count: int, *, blank: bool = False) -> np.ndarray:
    """``arrays`` (n, ...) with its last entry, or zeros if ``blank``, repeated until there are
    ``count``.
    """
    lacking = count - len(arrays)
    if lacking <= 0:
        return arrays
    more = arrays[-1:].repeat(lacking, axis=0)
    return np.concatenate([arrays, np.zeros_like(more) if blank else more])


def joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays (b, n, ...) one behind the other; those with fewer rows are filled up with zeros."""
    most = max(array.shape[1] for array in arrays)
    return np.concatenate(
        [
            np.pad(array, ((0, 0), (0, most - array.shape[1]), (0, 0)))
            if array.shape[1] < most
            else array
            for array in arrays
        ]
    )


def spread(detections: np.ndarray, batch: int, num_classes: int, path: object) -> Found:
    """Rows after NMS as boxes and scores, which another NMS leaves as they are.

    Shape: (n, 7) number of the image, x1, y1, x2, y2, score, class -> (batch, N, 4), (batch, N,
        K); padding rows of an image have score 0.
    Raises: CheckpointError if they are no such rows.
    """
    numbers = detections[:, [0, -1]] if detections.ndim == 2 and detections.shape[1] == 7 else None
    if numbers is None or ((numbers < 0) | (numbers >= (batch, num_classes))).any():
        raise CheckpointError(
            f"{path}: gives detections {detections.shape}, wanted rows of 7 for {batch} images and "
            f"{num_classes} classes. Export the checkpoint again"
        )
    images, labels = numbers.astype(np.int64).T
    most = int(np.bincount(images, minlength=1).max())
    boxes = np.zeros((batch, most, 4), np.float32)
    scores = np.zeros((batch, most, num_classes), np.float32)
    for image in range(batch):
        own = images == image
        rows = np.arange(own.sum())
        boxes[image, rows] = detections[own, 1:5]
        scores[image, rows, labels[own]] = detections[own, 5]
    return boxes, scores


def checked_outputs(arrays: Arrays, batch: int, num_classes: int, path: object) -> Found:
    """Check boxes and scores and return them. Raises: CheckpointError for other arrays."""
    boxes, scores = arrays["boxes"], arrays["scores"]
    rows = boxes.shape[1] if boxes.ndim == 3 else -1
    if boxes.shape != (batch, rows, 4) or scores.shape != (batch, rows, num_classes):
        raise CheckpointError(
            f"{path}: gives boxes {boxes.shape} and scores {scores.shape}, but its metadata says "
            f"{num_classes} classes; wanted ({batch}, A, 4) and ({batch}, A, {num_classes}). "
            "Export the checkpoint again"
        )
    return boxes.astype(np.float32, copy=False), scores.astype(np.float32, copy=False)


def check_ends(
    file: ExportedFile, session: Session, outputs: tuple[str, ...], *, is_entry: bool = True
) -> None:
    """Check that a network has the inputs and outputs that its metadata lists.

    Raises: CheckpointError.
    """
    shape = session.inputs.get("images", ())
    wrong = [name for name in outputs if name not in session.outputs]
    if is_entry and (len(shape) != 4 or shape[1] != 3 or len(session.inputs) != 1):
        ends = ", ".join(f"{name} {list(shape)}" for name, shape in session.inputs.items())
        raise CheckpointError(
            f"{file.path}: its inputs are {ends or 'none'}, wanted images (B, 3, H, W); export the "
            "checkpoint again"
        )
    if wrong:
        raise CheckpointError(
            f"{file.path}: its outputs are {', '.join(session.outputs)}, wanted "
            f"{', '.join(outputs)}; export the checkpoint again"
        )

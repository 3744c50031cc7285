"""Run routed models: every image takes the first exit or the second, and only the parts that it
needs are computed.

``contracts.Routed`` lists what a routed model has in addition to ``predict``.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import DTypeLike
from tabulate import tabulate

from mindyolo_ext import progress
from mindyolo_ext.backend import Tensor, nn, ops
from mindyolo_ext.backend.compiled import Compiled
from mindyolo_ext.backend.launch import world
from mindyolo_ext.backend.lock import framework_lock
from mindyolo_ext.backend.pixels import Pixels
from mindyolo_ext.contracts import Model, Routed, RoutedInference, RoutedModel
from mindyolo_ext.engine.flops import RoutedGflops, routed_gflops
from mindyolo_ext.engine.predictor import Predictor
from mindyolo_ext.errors import UsageError
from mindyolo_ext.evaluation.routing import PartMeter, checked_threshold, is_hard

PARTS = {
    "glance": "the first backbone and the router",
    "first": "the first exit",
    "second": "the second exit",
}
Found = tuple[np.ndarray, np.ndarray]


class Glance(nn.Cell):
    """``model.glance`` as a separate graph.

    Shape: images (B, 3, H, W) -> easiness (B,), then the features.
    """

    def __init__(self, model: RoutedInference):
        super().__init__(auto_prefix=False)
        self.model = model
        self.pixels = Pixels(model.input_spec)

    def construct(self, images: Tensor) -> tuple[Tensor, ...]:
        easiness, features = self.model.glance(self.pixels(images))
        return (easiness,) + features


class Exit(nn.Cell):
    """One exit of a routed model for a whole batch, as a separate graph.

    The features are separate arguments, because MindSpore would treat a tuple as a constant and
    compile again for each.

    Shape: images (B, 3, H, W), features -> boxes (B, A, 4), scores (B, A, K).
    """

    def __init__(self, model: RoutedInference, *, second: bool):
        super().__init__(auto_prefix=False)
        self.model, self.is_second = model, second
        self.pixels = Pixels(model.input_spec)

    def construct(self, images: Tensor, *features: Tensor) -> tuple[Tensor, Tensor]:
        if self.is_second:
            return self.model.second(self.pixels(images), features)
        return self.model.first(features)


class ExitOfRows(nn.Cell):
    """One exit for some images of a batch, selected on the device.

    Shape: rows (n,) int32, images (B, 3, H, W), features -> boxes (n, A, 4), scores (n, A, K).
    """

    def __init__(self, model: RoutedInference, *, second: bool):
        super().__init__(auto_prefix=False)
        self.exit = Exit(model, second=second)

    def construct(self, rows: Tensor, images: Tensor, *features: Tensor) -> tuple[Tensor, Tensor]:
        picked = ()
        for feature in features:
            picked = picked + (ops.gather(feature, rows, 0),)
        return self.exit(ops.gather(images, rows, 0), *picked)


class RoutedPredictor(Predictor):
    """A callable routed network that runs for each image only the exit that it takes.

    The glance runs on the whole batch. If all images take the same exit they run together,
    otherwise one by one: more batch sizes would need more compilations, and padding would waste
    work. An exit that no image takes is not even compiled.

    Args:
        model: a routed network of this project with its weights.
        fold: run the deploy form.
        dy_thres: images with an easiness below it take the second exit; 0 sends all to the first, 1
            all to the second. None uses the model's default.

    Attributes: ``easiness`` (B,) of the last call; ``meters`` by part, since ``reset``.
    Raises: ValueError for a threshold outside 0..1.
    """

    def __init__(self, model: RoutedModel, *, fold: bool = True, dy_thres: float | None = None):
        super().__init__(model, fold=fold)
        self.dy_thres = checked_threshold(model.dy_thres if dy_thres is None else dy_thres)
        self.has_router = model.has_router
        self.easiness = np.zeros(0, np.float32)
        exits = {"first": False, "second": True}
        self._glance = Compiled(Glance(self.network), fetched=1)
        self._whole = {
            part: Compiled(Exit(self.network, second=second)) for part, second in exits.items()
        }
        self._rows = {
            part: Compiled(ExitOfRows(self.network, second=second))
            for part, second in exits.items()
        }
        self._compiled: set[tuple] = set()
        self.reset()

    def __call__(self, images: np.ndarray, valid: int | None = None) -> Found:
        """Boxes (B, A, 4) and scores (B, A, K) of the exit that each image takes.

        Args:
            images: (B, 3, H, W) float32, or uint8 BGR (B, H, W, 3).
            valid: images from this index on are padding; they are not computed, their rows are 0.
        """
        count = len(images) if valid is None else valid
        if count == 0:
            return np.zeros((len(images), 0, 4), np.float32), np.zeros(
                (len(images), 0, self.num_classes), np.float32
            )
        with framework_lock:  # no other thread may run its glance in between
            return self._route(images, count)

    def _route(self, images: np.ndarray, count: int) -> Found:
        """``__call__`` for the first ``count`` images, at least one."""
        tensors = self.glance(images)
        hard = is_hard(self.easiness[:count], self.dy_thres)
        parts = [(part, np.flatnonzero(hard == (part == "second"))) for part in ("first", "second")]
        if any(len(rows) == len(images) for _, rows in parts):
            return self.leave("second" if hard[0] else "first", tensors)
        found = [
            (row, self._run(part, self._rows[part], np.array([row], np.int32), *tensors))
            for part, rows in parts
            for row in rows
        ]
        boxes, scores = (
            np.zeros((len(images), *array.shape[1:]), np.float32) for array in found[0][1]
        )
        for row, (its_boxes, its_scores) in found:
            boxes[row], scores[row] = its_boxes[0], its_scores[0]
        return boxes, scores

    def glance(self, images: np.ndarray) -> tuple[Tensor, ...]:
        """Set ``easiness``; returns images and features on the device, the input of ``leave``."""
        tensor = Tensor(images)
        self.easiness, *features = self._run("glance", self._glance, tensor)
        return tensor, *features

    def leave(self, part: str, tensors: Sequence[Tensor]) -> Found:
        """Boxes and scores of a whole batch by the exit ``part``, ``first`` or ``second``."""
        return self._run(part, self._whole[part], *tensors)

    def compile(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> bool:
        """Compile the glance for inputs of ``shape`` and log it; False if that was done before."""
        return self._compile("glance", self._glance, Tensor(np.zeros(shape, dtype)))

    def reset(self) -> None:
        """Reset the meters."""
        self.meters = {part: PartMeter() for part in PARTS}

    def _compile(self, part: str, run: Compiled, *inputs: np.ndarray | Tensor) -> bool:
        """Compile ``run`` for such inputs and run it once; False if that was done before."""
        key = (run, *((tuple(array.shape), str(array.dtype)) for array in inputs))
        if key in self._compiled:
            return False
        with progress.compiling(PARTS[part], show=world().is_main, done="compiled and ran"):
            run(*inputs)  # the first run sets up kernels and would distort the times
        self._compiled.add(key)
        return True

    def _run(self, part: str, run: Compiled, *inputs: np.ndarray | Tensor) -> tuple:
        """Run and time a part; results are arrays, features are tensors."""
        self._compile(part, run, *inputs)
        meter, begin = self.meters[part], time.perf_counter()
        outputs = run(*inputs)
        meter.seconds += time.perf_counter() - begin
        meter.images += len(outputs[0])
        return outputs


@dataclass
class Routing:
    """The routing of the images of an evaluation.

    Args:
        easiness: (N,) of each image.
        dy_thres: the threshold in force.
        milliseconds: by part, per image that took it.
        size: (height, width) that ``gflops`` were counted for.
        gflops: by part, if they were counted.
    """

    easiness: np.ndarray
    dy_thres: float
    milliseconds: dict[str, float] = field(default_factory=dict)
    size: tuple[int, int] = (0, 0)
    gflops: RoutedGflops | None = None

    @property
    def share_easy(self) -> float:
        """Share of the images that took the first exit."""
        return (
            float(1.0 - is_hard(self.easiness, self.dy_thres).mean()) if len(self.easiness) else 0.0
        )

    @property
    def images_per_second(self) -> float:
        """Speed of the network for this mixture of easy and hard images."""
        return images_per_second(self.milliseconds, self.share_easy)

    def count_gflops(self, network: RoutedInference, size: tuple[int, int]) -> None:
        """Count the operations of ``network`` for inputs of ``size``, height and width."""
        self.size, self.gflops = size, routed_gflops(network, size)

    def table(self) -> str:
        """One row: threshold, shares, GFLOPs and speed."""
        row = {"threshold": f"{self.dy_thres:.6f}", "easy, %": f"{100 * self.share_easy:.1f}"}
        if self.gflops is not None:
            row[f"mean GFLOPs at {self.size[0]}x{self.size[1]}"] = (
                f"{self.gflops.mean(self.share_easy):.4g}"
            )
        row["network, images/s"] = f"{self.images_per_second:.2f}"
        row |= {f"{part}, ms/image": f"{value:.2f}" for part, value in self.milliseconds.items()}
        return tabulate([list(row.values())], list(row), disable_numparse=True, stralign="right")


def images_per_second(milliseconds: dict[str, float], share_easy: float) -> float:
    """Speed of a mixture of easy and hard images, from the milliseconds of the parts; 0 if there
    are none.
    """
    mean = (
        milliseconds["glance"]
        + share_easy * milliseconds["first"]
        + (1.0 - share_easy) * milliseconds["second"]
    )
    return 1e3 / mean if mean > 0 else 0.0


def new_predictor(model: Model, *, fold: bool = True, dy_thres: float | None = None) -> Predictor:
    """Create the predictor for ``model``.

    Args:
        model: a network of this project with its weights.
        fold: run the deploy form.
        dy_thres: for a routed model, see ``RoutedPredictor``.

    Raises: ValueError for a threshold outside 0..1, or one for a model that is not routed.
    """
    if isinstance(model, Routed):
        return RoutedPredictor(model, fold=fold, dy_thres=dy_thres)
    if dy_thres is not None:
        raise UsageError(
            f"dy_thres={dy_thres}: {type(model).__name__} is not routed, all images take the "
            "same exit; leave the threshold out"
        )
    return Predictor(model, fold=fold)

"""Compiled inference for prediction and for evaluation, also during training."""

import numpy as np
from numpy.typing import DTypeLike

from mindyolo_ext import progress
from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.backend.compiled import Compiled
from mindyolo_ext.backend.launch import world
from mindyolo_ext.backend.lock import framework_lock
from mindyolo_ext.backend.parameters import load_parameters, parameter_values
from mindyolo_ext.backend.pixels import Pixels
from mindyolo_ext.contracts import Inference, Model


class Predict(nn.Cell):
    """``model.predict`` as a separate graph."""

    def __init__(self, model: Inference):
        super().__init__(auto_prefix=False)
        self.model = model
        self.pixels = Pixels(model.input_spec)

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.predict(self.pixels(images))


class Predictor:
    """A callable network: images (B, 3, H, W) float32, or uint8 BGR (B, H, W, 3) -> boxes (B, A, 4)
    xyxy network pixels, scores (B, A, K).

    Several threads may call it at the same time; each call returns the boxes of its own images.

    Args:
        model: a network of this project with its weights.
        fold: run the deploy form (BatchNorm folded, branches merged), which is faster and equal
            within 1e-3.
    """

    def __init__(self, model: Model, *, fold: bool = True):
        self.fold = fold
        self.input_spec = model.input_spec
        self.num_classes = model.num_classes
        self.network = model.to_deploy() if fold else model
        self._predict = Compiled(Predict(self.network))
        self._shapes: set[tuple] = set()

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with framework_lock:
            self.compile(images.shape, images.dtype)
            boxes, scores = self._predict(images)
        return boxes, scores

    def compile(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> bool:
        """Compile for inputs of ``shape`` without running, and log it; False if that is done."""
        key = (tuple(shape), np.dtype(dtype))
        with framework_lock:
            if key in self._shapes:
                return False
            with progress.compiling("the network", show=world().is_main):
                self._predict.compile(shape, dtype=dtype)
            self._shapes.add(key)
        return True

    def update(self, model: Model) -> None:
        """Load the weights of ``model`` without compiling again."""
        with framework_lock:
            source = model.to_deploy() if self.fold else model
            if source is not self.network:
                load_parameters(self.network, parameter_values(source))

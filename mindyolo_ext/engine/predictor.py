"""Compiled inference, the one way from pictures to boxes for evaluation, prediction and training's own checks."""
import numpy as np

from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.backend.parameters import load_parameters, parameter_values


class Predict(nn.Cell):
    """``model.predict`` as a graph of its own."""

    def __init__(self, model: nn.Cell):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.predict(images)


class Predictor:
    """Callable network: images (B, 3, H, W) float32 -> boxes (B, A, 4) xyxy network pixels, scores (B, A, K).

    Args:
        model: a network of this project with its weights.
        fold: run the deploy form (BatchNorm folded, branches merged), which is faster and equal within 1e-3.
    """

    def __init__(self, model: nn.Cell, *, fold: bool = True):
        self.fold = fold
        self.input_spec = model.input_spec
        self.num_classes = model.num_classes
        self.network = model.to_deploy() if fold else model
        self._cell = Predict(self.network)
        self._cell.set_train(False)
        self.shapes: set[tuple[int, ...]] = set()

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.compile(images.shape)
        boxes, scores = self._cell(Tensor(images))
        return boxes.asnumpy(), scores.asnumpy()

    def compile(self, shape: tuple[int, ...]) -> None:
        """Compile for inputs of ``shape`` without running; nothing if that was done before."""
        if not self.is_compiled_for(shape):
            self._cell.compile(Tensor(np.zeros(shape, np.float32)))
            self.shapes.add(tuple(shape))

    def is_compiled_for(self, shape: tuple[int, ...]) -> bool:
        """Whether a call with this input shape needs no compilation."""
        return tuple(shape) in self.shapes

    def update(self, model: nn.Cell) -> None:
        """Take over the weights of ``model`` without compiling again."""
        source = model.to_deploy() if self.fold else model
        if source is not self.network:
            load_parameters(self.network, parameter_values(source))

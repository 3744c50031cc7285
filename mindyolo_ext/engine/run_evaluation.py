"""The evaluation of a training run after an epoch."""

import time
from collections.abc import Mapping

import numpy as np

from mindyolo_ext.backend.launch import world
from mindyolo_ext.backend.parameters import load_parameters, parameter_values
from mindyolo_ext.config import Config
from mindyolo_ext.contracts import NetworkPredictor
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.engine.build import new_model
from mindyolo_ext.engine.datasets import worker_count
from mindyolo_ext.engine.evaluate import EvalResult, evaluate
from mindyolo_ext.engine.routing import new_predictor
from mindyolo_ext.engine.validation_loss import ValidationLoss


class RunEvaluation:
    """Evaluate weights on the validation images; the graph is compiled once.

    Args:
        dataset: the images, in the training's order of classes.
    """

    def __init__(self, config: Config, dataset: Dataset):
        self.config, self.dataset = config, dataset
        self.seconds: float | None = None  # of the last evaluation
        self._predictor: NetworkPredictor | None = None
        self._loss = ValidationLoss(config, dataset) if config.train.val_loss else None

    def run(
        self, weights: Mapping[str, np.ndarray], loss: dict, *, epoch: int
    ) -> tuple[EvalResult | None, dict[str, float]]:
        """Metrics (None on ranks other than 0), and the validation loss if the recipe asks for it.

        Args:
            weights: by the network's names.
            loss: the recipe's section in ``epoch``.
        """
        network = new_model(self.config, len(self.dataset.class_names))
        load_parameters(network, weights)
        network.set_train(False)
        settings = self.config.eval
        if self._predictor is None:
            self._predictor = new_predictor(network, fold=settings.fold, dy_thres=settings.dy_thres)
        else:
            self._predictor.update(network)
        begin = time.perf_counter()
        result = evaluate(
            self._predictor,
            self.dataset,
            settings,
            workers=worker_count(self.config, world().local_size),
            worker_kind=self.config.data.worker_kind,
            class_names=self.dataset.class_names,
        )
        losses = {}
        if self._loss is not None:
            losses = self._loss.compute(parameter_values(network), loss, epoch=epoch)
        self.seconds = time.perf_counter() - begin
        return result, losses

"""Compute the training's loss on images that are not trained on."""

from collections.abc import Mapping

import numpy as np

from mindyolo_ext import progress
from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.backend.compiled import Compiled
from mindyolo_ext.backend.distributed import sum_over_ranks
from mindyolo_ext.backend.launch import world
from mindyolo_ext.backend.parameters import load_parameters
from mindyolo_ext.backend.pixels import Pixels
from mindyolo_ext.config import Config
from mindyolo_ext.contracts import StepClock, Stepped, Trainable
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.loader import Loader
from mindyolo_ext.engine.build import new_model, new_trainable
from mindyolo_ext.engine.datasets import worker_count


class _Loss(nn.Cell):
    """Run a trainable on images as bytes, and return total and terms."""

    def __init__(self, trainable: Trainable):
        super().__init__(auto_prefix=False)
        self.trainable = trainable
        self.pixels = Pixels(trainable.model.input_spec)

    def construct(self, images: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.trainable(self.pixels(images), targets, mask)


class ValidationLoss:
    """Loss of given weights on a data set, in the network's inference mode and in float32.

    Images are only resized. A batch has the training's size, or all images if there are fewer;
    images that do not fill a batch are left out.

    Args:
        config: the recipe.
        dataset: the images, in the training's order of classes.
    """

    def __init__(self, config: Config, dataset: Dataset):
        self.config, self.dataset = config, dataset
        self.world = world()
        self.batch_size = min(config.train.per_batch_size, max(len(dataset) // self.world.size, 1))
        self._loss: dict | None = None

    def compute(
        self, weights: Mapping[str, np.ndarray], loss: dict, *, epoch: int
    ) -> dict[str, float]:
        """``val_loss`` and ``val_`` of each term, means over the batches of all ranks.

        Args:
            weights: by the network's names.
            loss: the recipe's section in ``epoch``.
        """
        if loss != self._loss:
            model = new_model(self.config, len(self.dataset.class_names))
            self._trainable, self._loss = new_trainable(model, loss), loss
            self._compiled = Compiled(_Loss(self._trainable))
        load_parameters(self._trainable.model, weights)
        settings = self.config.train
        if isinstance(self._trainable, Stepped):
            self._trainable.begin_step(
                StepClock(0, epoch, settings.epochs, settings.seed, self.world.rank)
            )
        sums, steps = np.zeros(1 + len(self._trainable.term_names)), 0
        with self._loader() as loader:
            shown = progress.bar(
                loader.epoch(0),
                total=loader.steps_per_epoch,
                title="validation loss",
                show=self.world.is_main,
            )
            for batch in shown:
                total, terms = self._compiled(batch.images, batch.targets, batch.mask)
                sums += np.concatenate([np.reshape(total, 1), np.reshape(terms, -1)])
                steps += 1
        means = sum_over_ranks(sums.astype(np.float32)) / max(steps, 1)
        names = ("loss", *self._trainable.term_names)
        return {f"val_{name}": float(value) for name, value in zip(names, means)}

    def _loader(self) -> Loader:
        return Loader(
            self.dataset,
            batch_size=self.batch_size,
            input_spec=self._trainable.model.input_spec,
            drop_last=True,
            rank=self.world.rank,
            world_size=self.world.size,
            workers=worker_count(self.config, self.world.local_size),
            worker_kind=self.config.data.worker_kind,
            pixels="uint8",
        )

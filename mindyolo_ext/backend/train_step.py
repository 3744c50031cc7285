"""One step of a training, from the arrays of a batch to the array of its report."""

from collections.abc import Mapping

import numpy as np

from mindyolo_ext.backend.choice import BACKEND
from mindyolo_ext.backend.distributed import average_over_ranks
from mindyolo_ext.backend.optimizer import LOSS_SCALERS, OPTIMIZERS, OptimizerOptions
from mindyolo_ext.backend.parameters import load_state_values, state_values

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.train_step import Step
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.train_step import Step

__all__ = ["LOSS_SCALERS", "OPTIMIZERS", "OptimizerOptions", "TrainStep"]


class TrainStep(Step):
    """A trainable with its optimizer, from arrays to an array. Puts the trainable in training mode.

    Args:
        trainable: what to train, see ``contracts.Trainable``.
        groups: from ``backend.parameters.parameter_groups``; sgd and adam add the weight decay to
            the gradient, adamw takes it off the weight.
        options: optimizer settings.
        input_spec: of the model, for images that come as bytes.

    Shape: images (B, 3, H, W) float32, or uint8 BGR (B, H, W, 3), targets (B, M, 5), mask (B, M),
        rates (G,) learning rate per group, controls (3,): momentum (beta1 with
        ``momentum_is_beta1``), update (1 applies the
        accumulated gradient, 0 only adds to it), moving-average decay -> report (4 + T,): total,
        gradient norm, 1 if finite else 0, loss scale, terms. Total and terms are summed over ranks.
    """

    def share_statistics(self) -> None:
        """Let all ranks have the mean of their batch-norm statistics, so that each evaluates the
        same network.
        """
        average_over_ranks(self.shared_over_ranks())

    def state(self) -> dict[str, np.ndarray]:
        """Optimizer, accumulation, loss-scale and moving-average state by name, for a
        checkpoint.
        """
        return state_values(self.state_parameters())

    def load_state(self, values: Mapping[str, np.ndarray]) -> None:
        """Put back what ``state`` gave. Raises: CheckpointError if names or shapes differ."""
        load_state_values(self.state_parameters(), values)

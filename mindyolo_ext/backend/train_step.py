"""One training step, from the arrays of a batch to the array of its report."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mindyolo_ext.backend.choice import BACKEND
from mindyolo_ext.backend.distributed import average_over_ranks
from mindyolo_ext.backend.optimizer import LOSS_SCALERS, OPTIMIZERS, OptimizerOptions
from mindyolo_ext.backend.parameters import load_state_values, state_values

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.train_step import Step
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.train_step import Step

__all__ = ["LOSS_SCALERS", "OPTIMIZERS", "OptimizerOptions", "Tally", "TrainStep"]


@dataclass(frozen=True)
class Tally:
    """Summary of the steps since ``begin_tally``.

    Args:
        report: report of the last step, (4 + T,), see ``TrainStep``.
        sums: sum of all reports, (4 + T,).
        bad_steps: number of steps up to the last one with a non-finite loss or gradient in a row.
        most_bad_steps: longest row of such steps.
    """

    report: np.ndarray
    sums: np.ndarray
    bad_steps: int
    most_bad_steps: int


class TrainStep(Step):
    """A trainable with its optimizer, from arrays to an array. Puts the trainable in training mode.

    ``take`` queues a step on the device without waiting, ``tally`` reads the results of all steps
    so far, and a call does both.

    Args:
        trainable: what to train, see ``contracts.Trainable``.
        groups: from ``backend.parameters.parameter_groups``; sgd and adam add the weight decay to
            the gradient, adamw subtracts it from the weight.
        options: optimizer settings.
        input_spec: input convention of the model, for images given as bytes.

    Shape: images (B, 3, H, W) float32, or uint8 BGR (B, H, W, 3), targets (B, M, 5), mask (B, M),
        rates (G,) learning rate per group, controls (3,): momentum (beta1 with
        ``momentum_is_beta1``), update (1 applies the
        accumulated gradient, 0 only adds to it), moving-average decay -> report (4 + T,): total,
        gradient norm, 1 if finite else 0, loss scale, terms. Total and terms are summed over ranks.
    """

    def __call__(
        self,
        images: np.ndarray,
        targets: np.ndarray,
        mask: np.ndarray,
        rates: np.ndarray,
        controls: np.ndarray,
    ) -> np.ndarray:
        """Take one step and wait for its report. Raises: DeviceError if device memory runs out."""
        self.take(images, targets, mask, rates, controls)
        return self.tally().report

    def tally(self) -> Tally:
        """Read the reports since ``begin_tally``. This is the only read from the device, which adds
        up and counts by itself.
        """
        reports, now, most = np.split(self.read_tally(), [-2, -1])
        report, sums = np.split(reports, 2)
        return Tally(report, sums, int(now[0]), int(most[0]))

    def share_statistics(self) -> None:
        """Average the batch-norm statistics over all ranks, so that all have the same network."""
        average_over_ranks(self.shared_over_ranks())

    def state(self) -> dict[str, np.ndarray]:
        """Return optimizer, accumulation, loss-scale and moving-average state by name."""
        return state_values(self.state_parameters())

    def load_state(self, values: Mapping[str, np.ndarray]) -> None:
        """Restore the result of ``state``. Raises: CheckpointError if names or shapes differ."""
        load_state_values(self.state_parameters(), values)

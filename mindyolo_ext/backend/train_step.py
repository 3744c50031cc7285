"""One step of a training, from the arrays of a batch to the array of its report."""

from mindyolo_ext.backend.choice import BACKEND
from mindyolo_ext.backend.optimizer import LOSS_SCALERS, OPTIMIZERS, OptimizerOptions

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.train_step import TrainStep
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.train_step import TrainStep

__all__ = ["LOSS_SCALERS", "OPTIMIZERS", "OptimizerOptions", "TrainStep"]

"""Optimizer settings of a training step. Loads no framework."""

from dataclasses import dataclass

from mindyolo_ext.errors import ConfigError

OPTIMIZERS = ("sgd", "adam", "adamw")
LOSS_SCALERS = ("none", "static", "dynamic")


@dataclass(frozen=True)
class OptimizerOptions:
    """Settings of the optimizer; the rates themselves are inputs of every step.

    Args:
        name: ``sgd`` (PyTorch's form: momentum buffer without dampening), ``adam`` or ``adamw``.
        nesterov: for sgd.
        betas, eps: settings of adam and adamw.
        momentum_is_beta1: whether adam and adamw use each step's momentum as the first beta.
        accumulate: micro batches per update; gradients are summed, and the caller decides when to
            update.
        clip_norm: maximum global norm of the gradient, 0 for no clipping.
        ema: whether a moving average of all parameters and statistics is kept.
        loss_scaler, loss_scale: ``none``, ``static`` or ``dynamic`` and its first value.

    Raises: ConfigError for an unknown name.
    """

    name: str = "sgd"
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum_is_beta1: bool = False
    accumulate: int = 1
    clip_norm: float = 0.0
    ema: bool = False
    loss_scaler: str = "none"
    loss_scale: float = 1024.0
    scale_window: int = 2000

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise ConfigError(f"optimizer must be one of {OPTIMIZERS}, got {self.name!r}")
        if self.loss_scaler not in LOSS_SCALERS:
            raise ConfigError(
                f"loss scaler must be one of {LOSS_SCALERS}, got {self.loss_scaler!r}"
            )

"""Recipes: their settings (``schema``), how files are read (``read``) and shown (``describe``).

Loads no framework. Recipes hold no expressions and no class paths.
"""

from mindyolo_ext.config.read import config_from_mapping, load_config, override
from mindyolo_ext.config.schema import (
    Config,
    DataConfig,
    DistillConfig,
    EvalConfig,
    InputConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    StageConfig,
    TrainConfig,
)

__all__ = [
    "Config",
    "DataConfig",
    "DistillConfig",
    "EvalConfig",
    "InputConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "StageConfig",
    "TrainConfig",
    "config_from_mapping",
    "load_config",
    "override",
]

"""``mindyolo-ext train``, also ``train.py``."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mindyolo_ext.cli.arguments import (
    add_bool,
    add_machine,
    add_recipe,
    add_setting,
    add_switch,
    true_or_false,
)
from mindyolo_ext.cli.mindyolo import add_mindyolo, apply_mindyolo
from mindyolo_ext.cli.options import add_training_options
from mindyolo_ext.cli.recipe import read_recipe, recipe_path, start
from mindyolo_ext.framework import follow

if TYPE_CHECKING:
    from mindyolo_ext.config import Config

# Values for --clip_grad True and --ema True if the recipe sets none
DEFAULT_CLIP = 10.0  # as MindYOLO
DEFAULT_EMA = 0.9999  # as MindYOLO, Gold-YOLO and DynamicDet


def add_train(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``train``."""
    add_recipe(parser)
    add_machine(parser)
    add_setting(parser, "--weight", "train.weight", metavar="FILE")
    parser.add_argument(
        "--resume",
        type=true_or_false,
        nargs="?",
        const=True,
        default=False,
        metavar="True|False",
        help="continue the run in --save_dir; the flag alone means True",
    )
    parser.add_argument(
        "--save_dir", type=Path, metavar="DIR", help="folder of the run (default: runs/RECIPE)"
    )
    add_setting(parser, "--epochs", "train.epochs", type=int)
    add_setting(parser, "--per_batch_size", "train.per_batch_size", type=int)
    add_switch(parser, "--run_eval", "train.run_eval")
    add_setting(parser, "--run_eval_interval", "train.eval_interval", type=int)
    add_setting(parser, "--log_interval", "train.log_interval", type=int)
    add_setting(parser, "--patience", "train.patience", type=int)
    loggers = ["tensorboard", "mlflow", "wandb", "swanlab"]
    add_setting(parser, "--loggers", "train.loggers", nargs="+", choices=loggers)
    add_setting(parser, "--seed", "train.seed", type=int)
    add_setting(parser, "--accumulate", "train.optimizer.accumulate", type=int)
    add_training_options(parser)
    add_switch(parser, "--sync_bn", "train.sync_bn")
    add_switch(parser, "--compile", "train.compile")
    add_switch(parser, "--recompute", "train.recompute")
    add_switch(parser, "--channels_last", "train.channels_last")
    add_bool(
        parser,
        "--ema",
        f"moving average of the weights; True uses the recipe's decay, or {DEFAULT_EMA} if it has "
        "none (default: the recipe's train.ema_decay)",
    )
    add_bool(
        parser,
        "--clip_grad",
        "clip gradients by their global norm; True uses --clip_grad_value, or the recipe's norm, "
        f"or {DEFAULT_CLIP:g} (default: the recipe's train.optimizer.clip_norm)",
    )
    norm = "Maximum norm; turns clipping on"
    add_setting(parser, "--clip_grad_value", "train.optimizer.clip_norm", norm, type=float)
    scalers = ["auto", "none", "static", "dynamic"]
    add_setting(parser, "--ms_loss_scaler", "train.loss_scaler", choices=scalers)
    add_setting(parser, "--ms_loss_scaler_value", "train.loss_scale", type=float)
    add_setting(parser, "--opencv_threads_num", "data.opencv_threads", type=int)
    add_mindyolo(parser, "train")


def train(options: argparse.Namespace) -> None:
    """Train the recipe of ``--config`` or ``--model``."""
    translated = apply_mindyolo(options)
    config = _recipe(options, translated)
    follow(config.train.backend)
    start(options, config.train.seed, config)
    from mindyolo_ext.engine.train import train as run

    name = (recipe_path(options) or Path("run")).stem
    run(config, options.save_dir or Path("runs") / name, resume=options.resume)


def _recipe(options: argparse.Namespace, translated: Sequence[str]) -> "Config":
    """Read the recipe and apply all flags, including ``translated`` ones of MindYOLO; ``--set`` has
    the highest priority.
    """
    flags = [] if options.backend is None else [f"train.backend={options.backend}"]
    if options.rect:
        flags.append("train.multi_scale=[]")
    if options.ema is False:
        flags.append("train.ema_decay=0")
    if options.clip_grad is False:
        flags.append("train.optimizer.clip_norm=0")
    flags += translated
    config = read_recipe(options, [*flags, *options.set])
    if options.data and config.train.run_eval:
        from mindyolo_ext.engine.data_file import check_validation

        check_validation(options.data)
    defaults = []
    if options.ema and not config.train.ema_decay:
        defaults.append(f"train.ema_decay={DEFAULT_EMA}")
    if options.clip_grad and not config.train.optimizer.clip_norm:
        defaults.append(f"train.optimizer.clip_norm={DEFAULT_CLIP}")
    return read_recipe(options, [*flags, *defaults, *options.set]) if defaults else config

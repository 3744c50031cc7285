"""``mindyolo-ext train``, also ``train.py``."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mindyolo_ext.cli import backend
from mindyolo_ext.cli.arguments import add_bool, add_machine, add_recipe, true_or_false
from mindyolo_ext.cli.mindyolo import add_mindyolo, check_mindyolo
from mindyolo_ext.cli.recipe import given, read_recipe, start

if TYPE_CHECKING:
    from mindyolo_ext.config import Config

# What --clip_grad True and --ema True mean where the recipe has none
DEFAULT_CLIP = 10.0  # as MindYOLO
DEFAULT_EMA = 0.9999  # as MindYOLO, Gold-YOLO and DynamicDet


def add_train(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``train``."""
    add_recipe(parser, config_required=True)
    add_machine(parser)
    parser.add_argument("--weight", help="start from this checkpoint (fine-tuning)")
    parser.add_argument(
        "--resume",
        type=true_or_false,
        nargs="?",
        const=True,
        default=False,
        metavar="True|False",
        help="continue the run in --save_dir; alone it means True",
    )
    parser.add_argument("--per_batch_size", type=int, help="images per rank and step")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--save_dir", type=Path, help="folder of the run (runs/<recipe>)")
    add_bool(parser, "--run_eval", "evaluate while training")
    parser.add_argument("--run_eval_interval", type=int, help="epochs between evaluations")
    parser.add_argument("--log_interval", type=int, help="steps between updates of the shown loss")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--accumulate", type=int, help="micro batches per update")
    add_bool(parser, "--sync_bn", "batch norm over all ranks")
    add_bool(parser, "--compile", "PyTorch: torch.compile the training step (train.compile)")
    add_bool(parser, "--recompute", "save memory, take more time (train.recompute)")
    add_bool(parser, "--channels_last", "PyTorch on GPUs: layout of maps (train.channels_last)")
    add_bool(
        parser,
        "--ema",
        f"moving average of the weights; True takes the recipe's, or {DEFAULT_EMA} if it has none",
    )
    add_bool(
        parser,
        "--clip_grad",
        "clip gradients by their global norm; True takes --clip_grad_value, or the recipe's norm, "
        f"or {DEFAULT_CLIP:g}",
    )
    parser.add_argument(
        "--clip_grad_value", type=float, help="largest norm; enough to turn clipping on"
    )
    parser.add_argument("--ms_loss_scaler", choices=["auto", "none", "static", "dynamic"])
    parser.add_argument("--ms_loss_scaler_value", type=float)
    parser.add_argument(
        "--opencv_threads_num",
        type=int,
        metavar="N",
        help="threads of OpenCV in this process; 0 for none beside it. Worker processes have one",
    )
    add_mindyolo(parser)


def train(options: argparse.Namespace) -> None:
    """Train the recipe of ``--config``."""
    check_mindyolo(options)
    config = _recipe(options)
    backend.follow(config.train.backend)
    start(options, config.train.seed, config)
    from mindyolo_ext.engine.train import train as run

    if options.opencv_threads_num is not None:
        import cv2

        cv2.setNumThreads(options.opencv_threads_num)
    run(config, options.save_dir or Path("runs") / options.config.stem, resume=options.resume)


def _recipe(options: argparse.Namespace) -> "Config":
    """The recipe with all flags; ``--set`` wins over the others."""
    flags = given(
        options,
        backend="train.backend",
        epochs="train.epochs",
        per_batch_size="train.per_batch_size",
        run_eval="train.run_eval",
        run_eval_interval="train.eval_interval",
        log_interval="train.log_interval",
        seed="train.seed",
        accumulate="train.optimizer.accumulate",
        sync_bn="train.sync_bn",
        compile="train.compile",
        channels_last="train.channels_last",
        recompute="train.recompute",
        weight="train.weight",
        clip_grad_value="train.optimizer.clip_norm",
        ms_loss_scaler="train.loss_scaler",
        ms_loss_scaler_value="train.loss_scale",
    )
    if options.ema is False:
        flags.append("train.ema_decay=0")
    if options.clip_grad is False:
        flags.append("train.optimizer.clip_norm=0")
    config = read_recipe(options, [*flags, *options.set])
    defaults = []
    if options.ema and not config.train.ema_decay:
        defaults.append(f"train.ema_decay={DEFAULT_EMA}")
    if options.clip_grad and not config.train.optimizer.clip_norm:
        defaults.append(f"train.optimizer.clip_norm={DEFAULT_CLIP}")
    return read_recipe(options, [*flags, *defaults, *options.set]) if defaults else config

"""Flags of MindYOLO's programs that have no flag of the same name here, and how each is handled.

A value that matches the behavior here is accepted silently. A value with a counterpart is
translated. Any other value gets one sentence: an error if it would change the result, else a note.
``migrate`` uses the same table for the keys of recipes, which MindYOLO reads as defaults of its
flags.
"""

import argparse
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mindyolo_ext.cli.arguments import true_or_false
from mindyolo_ext.errors import UsageError

logger = logging.getLogger("mindyolo_ext")
ALL = ("train", "test", "predict", "export")


@dataclass(frozen=True)
class Flag:
    """One flag of MindYOLO.

    Args:
        name: without ``--``.
        verbs: our verbs that replace its programs with this flag.
        kind: type of its values.
        usual: values that match the behavior here.
        sentence: explanation of any other value.
        refused: whether any other value is an error.
        setting: recipe key that every value is translated to.
        option: option of the verb that every value is translated to.
    """

    name: str
    verbs: tuple[str, ...]
    kind: Callable[[str], Any]
    sentence: str = ""
    usual: tuple = field(default=(), kw_only=True)
    refused: bool = field(default=True, kw_only=True)
    setting: str = field(default="", kw_only=True)
    option: str = field(default="", kw_only=True)

    def changes_nothing(self, value: Any) -> bool:
        """Whether ``value`` matches the behavior here."""
        return any(value == usual and type(value) is type(usual) for usual in self.usual)


def _one_source(text: str) -> list[str]:
    return [text]


def _file_format(text: str) -> list[str]:
    """``MINDIR`` -> ["mindir"]."""
    if text.lower() not in ("mindir", "onnx", "air"):
        raise argparse.ArgumentTypeError(f"wanted MINDIR, AIR or ONNX, got {text!r}")
    return [text.lower()]


_TRAIN, _TEST = ("train",), ("test",)
_CLOUD = "cloud files are not copied: copy them first, and set --data_root, --weight and --save_dir"
_COMPILED = "the network is compiled, in float32"
_KNOWS = "the checkpoint stores its network, classes and input; leave it out"
FLAGS = (
    Flag("task", ALL[:3], str, "only boxes are detected, no masks", usual=("detect",)),
    Flag(
        "overflow_still_update",
        _TRAIN,
        true_or_false,
        "a step with a non-finite gradient is skipped and counted; leave it out "
        "(train.max_bad_steps limits how many)",
        usual=(False,),
    ),
    Flag(
        "recompute_layers",
        _TRAIN,
        int,
        "--recompute True computes every stage of backbone and neck again",
        usual=(0,),
        refused=False,
    ),
    Flag(
        "ms_jit",
        _TRAIN,
        true_or_false,
        "operators run one by one with --ms_mode 1",
        usual=(True,),
    ),
    Flag(
        "ms_datasink",
        _TRAIN,
        true_or_false,
        "data.workers prepare batches while a step runs; leave it out",
        usual=(False,),
    ),
    Flag(
        "keep_loss_fp32",
        _TRAIN,
        true_or_false,
        "losses are computed in float32 at every --ms_amp_level; leave it out",
        usual=(True,),
    ),
    Flag(
        "auto_accumulate",
        _TRAIN,
        true_or_false,
        "becomes train.optimizer.nominal_batch, the images per update that weight_decay refers to",
        usual=(False,),
        refused=False,
    ),
    Flag(
        "max_call_depth",
        _TRAIN,
        int,
        "no graph here is nested deeper than MindSpore's default limit",
        refused=False,
    ),
    Flag(
        "anchor_base",
        _TRAIN,
        true_or_false,
        "each model defines whether it has anchors",
        refused=False,
    ),
    Flag(
        "conf_free",
        ALL[:3],
        true_or_false,
        "each model defines how its scores are computed",
        refused=False,
    ),
    Flag(
        "ema_weight",
        _TRAIN,
        str,
        "a checkpoint holds the moving average if training kept one; pass it as --weight",
        usual=("",),
    ),
    Flag(
        "single_cls",
        ALL[2:],
        true_or_false,
        "the checkpoint stores its classes; use the flag in train and test",
        usual=(False,),
        refused=False,
    ),
    Flag("keep_checkpoint_max", _TRAIN, int, setting="train.keep_checkpoint_max"),
    Flag("rect", _TEST, true_or_false, setting="eval.rectangular"),
    Flag(
        "exec_nms",
        ("test", "predict"),
        true_or_false,
        "boxes always go through NMS; an exported file returns all boxes before NMS",
        usual=(True,),
    ),
    Flag(
        "nms_time_limit",
        ALL,
        float,
        "NMS has no time limit, so no image loses its boxes",
        refused=False,
    ),
    Flag(
        "summary",
        _TRAIN,
        true_or_false,
        "losses and rates are in results.csv and results.png of the run's folder",
        refused=False,
    ),
    Flag(
        "profiler",
        _TRAIN,
        true_or_false,
        "run `python -m mindyolo_ext.cli train ...` under the profiler of MindSpore or PyTorch",
        usual=(False,),
    ),
    Flag("profiler_step_num", _TRAIN, int, "nothing is profiled", refused=False),
    Flag(
        "strict_load",
        _TRAIN,
        true_or_false,
        "tensors of --weight that do not fit are initialized and listed",
        usual=(False,),
        refused=False,
    ),
    # predict and export, which read from the checkpoint what MindYOLO reads from its recipe
    Flag("config", ("predict", "export"), str, _KNOWS, refused=False),
    Flag("ms_mode", ("predict", "export"), int, _COMPILED, usual=(0,), refused=False),
    Flag("ms_amp_level", ("predict",), str, _COMPILED, usual=("O0",), refused=False),
    Flag(
        "ms_enable_graph_kernel",
        ("predict",),
        true_or_false,
        _COMPILED,
        usual=(False,),
        refused=False,
    ),
    Flag("precision_mode", ("predict",), str, _COMPILED, refused=False),
    Flag(
        "seed",
        ("predict", "export"),
        int,
        "nothing is random",
        refused=False,
    ),
    Flag("image_path", ("predict",), _one_source, option="source"),
    Flag(
        "save_result",
        ("predict",),
        true_or_false,
        "predictions.json is always written; --nosave leaves the annotated copies out",
        usual=(True,),
    ),
    Flag("result_folder", ("predict",), Path, option="save_dir"),
    Flag(
        "mindir_path",
        ("predict",),
        str,
        "takes a checkpoint, as --weight; an exported file runs with deploy/onnx_runtime.py",
    ),
    Flag(
        "device_target",
        ("export",),
        str,
        "an exported file does not depend on a device",
        refused=False,
    ),
    Flag("file_format", ("export",), _file_format, option="format"),
    Flag("save_dir", ("export",), Path, option="output"),
    # ModelArts
    Flag("enable_modelarts", ALL[:2], true_or_false, _CLOUD, usual=(False,)),
    Flag("data_url", ALL[:2], str, _CLOUD, usual=("",)),
    Flag("ckpt_url", ALL[:2], str, _CLOUD, usual=("",)),
    Flag("multi_data_url", _TRAIN, str, _CLOUD, usual=("",)),
    Flag("pretrain_url", _TRAIN, str, _CLOUD, usual=("",)),
    Flag("train_url", ALL[:2], str, _CLOUD, usual=("",)),
    Flag("data_dir", ALL[:2], str, _CLOUD, usual=("/cache/data/",)),
    Flag("ckpt_dir", ALL[:2], str, _CLOUD, usual=("/cache/pretrain_ckpt/",)),
)
NOMINAL_BATCH = 64  # MindYOLO's nbs where a command has none


def add_mindyolo(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the flags that the verb does not have, without a line in ``--help``."""
    own = {option for action in parser._actions for option in action.option_strings}
    taken = [flag for flag in FLAGS if verb in flag.verbs and f"--{flag.name}" not in own]
    for flag in taken:
        parser.add_argument(
            f"--{flag.name}",
            dest=f"mindyolo_{flag.name}",
            type=flag.kind,
            help=argparse.SUPPRESS,
        )
    parser.set_defaults(mindyolo=taken)


def apply_mindyolo(options: argparse.Namespace) -> list[str]:
    """Translate MindYOLO's flags, or log a note about them.

    Returns: ``section.key=value`` for the flags that a recipe has a setting for.
    Raises: UsageError for a flag with no equivalent.
    """
    values = {flag.name: vars(options)[f"mindyolo_{flag.name}"] for flag in options.mindyolo}
    settings = []
    for flag in options.mindyolo:
        value = values[flag.name]
        if value is None or flag.changes_nothing(value):
            continue
        if flag.setting:
            settings.append(f"{flag.setting}={str(value).lower()}")
        elif flag.option:
            _set_option(options, flag, value)
        elif flag.refused:
            raise UsageError(f"--{flag.name} {value}: {flag.sentence}")
        else:
            logger.info("--%s %s: %s", flag.name, value, flag.sentence)
    return settings + _nominal_batch(options, values.get("auto_accumulate"))


def _nominal_batch(options: argparse.Namespace, auto_accumulate: bool | None) -> list[str]:
    """Resolve ``--nbs`` with ``--auto_accumulate``: its default if on, ignored if off."""
    given = vars(options).get("nbs")
    if auto_accumulate and given is None:
        return [f"train.optimizer.nominal_batch={NOMINAL_BATCH}"]
    if auto_accumulate is False and given is not None:
        logger.info("--nbs %s: has no effect with --auto_accumulate False, as in MindYOLO", given)
        options.nbs = None
    return []


def _set_option(options: argparse.Namespace, flag: Flag, value: Any) -> None:
    """Store the value as the verb's own option, which must not be set as well."""
    own = vars(options)
    if own[flag.option]:
        name = "the list of images" if flag.option == "source" else f"--{flag.option}"
        raise UsageError(f"--{flag.name}: means the same as {name}; leave one out")
    own[flag.option] = value / options.weight.stem if flag.option == "output" else value

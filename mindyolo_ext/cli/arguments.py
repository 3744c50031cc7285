"""Arguments that several verbs share, and the types of their values."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEVICES = ("CPU", "GPU", "Ascend")


@dataclass(frozen=True)
class Verb:
    """One verb of the command.

    Args:
        name: the word on the command line.
        run: runs the verb with the parsed options.
        add: adds its arguments to a parser; None for a verb without arguments.
        text: one line for ``--help``.
    """

    name: str
    run: Callable[[argparse.Namespace], None]
    add: Callable[[argparse.ArgumentParser], None] | None
    text: str


def true_or_false(text: str) -> bool:
    """Parse ``True`` or ``False``, in upper or lower case."""
    values = {"true": True, "false": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"wanted True or False, got {text!r}")
    return values[text.lower()]


def number_or_word(text: str) -> int | str:
    """Parse a number: ``3`` -> 3; return other words unchanged."""
    try:
        return int(text)
    except ValueError:
        return text


def numbers(text: str) -> list[float]:
    """Parse numbers: ``1,2.5`` -> [1.0, 2.5]."""
    return [float(word) for word in text.split(",") if word.strip()]


def keyword(text: str) -> tuple[str, object]:
    """Split ``name=value`` into (name, value); the value is read as YAML."""
    import yaml

    name, separator, value = text.partition("=")
    if not separator or not name.strip().isidentifier():
        raise argparse.ArgumentTypeError(f"wanted NAME=VALUE, got {text!r}")
    try:
        return name.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: the value is not valid YAML") from error


def device(text: str) -> str:
    """Normalize the case of a device: ``cpu`` -> ``CPU``. argparse rejects unknown names."""
    return next((name for name in DEVICES if name.lower() == text.lower()), text)


def add_bool(
    parser: argparse.ArgumentParser, flag: str, text: str, *, default: bool | None = None
) -> None:
    """Add a flag that takes ``True`` or ``False``, as MindYOLO's flags do."""
    parser.add_argument(flag, type=true_or_false, default=default, metavar="True|False", help=text)


def add_setting(
    parser: argparse.ArgumentParser, flag: str, key: str, text: str = "", **keywords: Any
) -> None:
    """Add a flag that changes a setting of the recipe, see ``recipe.given``.

    Args:
        key: the setting, ``train.epochs``.
        text: for ``--help``; the setting's own sentence if empty.
        keywords: for argparse.
    """
    from mindyolo_ext.config.describe import find_settings

    setting = find_settings(key)[0]
    if keywords.get("type") in (int, float):
        keywords = {"metavar": "N" if keywords["type"] is int else "X", **keywords}
    sentence = text or setting.sentence.replace("`", "")
    words = f"{sentence.removesuffix('.')} ({key}; default: the recipe's, else {setting.default})"
    action = parser.add_argument(flag, help=words.replace("%", "%%"), **keywords)
    note_setting(parser, action, key)


def note_setting(parser: argparse.ArgumentParser, action: argparse.Action, key: str) -> None:
    """Record the setting of a flag in ``setting_keys`` of the parsed options."""
    keys = parser.get_default("setting_keys") or {}
    parser.set_defaults(setting_keys={**keys, action.dest: key})


def add_switch(parser: argparse.ArgumentParser, flag: str, key: str, text: str = "") -> None:
    """Add a flag that changes a setting of the recipe and takes ``True`` or ``False``."""
    add_setting(parser, flag, key, text, type=true_or_false, metavar="True|False")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers``."""
    add_setting(parser, "--workers", "data.workers", type=number_or_word, metavar="N|auto")


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device_target``."""
    parser.add_argument(
        "--device_target",
        type=device,
        choices=DEVICES,
        help="device that runs the network (default: the best one found, see the log)",
    )


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """``--runtime``."""
    from mindyolo_ext.runtimes.names import RUNTIMES

    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        metavar="NAME",
        help=f"what runs the network: {', '.join(RUNTIMES)}; a checkpoint is exported for it if "
        "necessary (default: the file's usual one: onnxruntime for .onnx, openvino for .xml, "
        "ncnn for .param, mindir for .mindir, tensorrt for .engine, the --backend for a "
        "checkpoint)",
    )


def add_split(parser: argparse.ArgumentParser) -> None:
    """Add ``--split`` of verbs that evaluate."""
    parser.add_argument(
        "--split",
        default="val",
        choices=["train", "val", "test"],
        help="images to use: data.train, data.val or data.test of the recipe",
    )


def add_size(parser: argparse.ArgumentParser, default: str = "the recipe's input.size") -> None:
    """Add ``--img_size``; ``default`` describes the size without it."""
    parser.add_argument(
        "--img_size",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help=f"input size of the network: one side, or height and width (default: {default})",
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add ``--seed`` to a verb that does not train."""
    parser.add_argument("--seed", type=int, default=0, help="random seed")


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add the flags for device, ranks, mode and cache."""
    add_device(parser)
    add_bool(parser, "--is_parallel", "join the ranks of mpirun or msrun", default=False)
    parser.add_argument(
        "--ms_mode", type=int, default=0, choices=[0, 1], help="0 graph, 1 pynative (debugging)"
    )
    parser.add_argument(
        "--compile_cache",
        type=Path,
        metavar="DIR",
        help="folder for compiled graphs: the next start with the same recipe skips the "
        "compilation (default: graphs are not kept)",
    )


class _Recipes(argparse.Action):
    """Store the first file as the recipe and the files of further uses as its ``overlays``."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002
        namespace: argparse.Namespace,
        values: Path | str | Sequence[Path] | None,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        if namespace.config is None:
            namespace.config = values
        else:
            namespace.overlays = [*namespace.overlays, values]


def add_config(parser: argparse.ArgumentParser, *, text: str = "recipe") -> None:
    """Add ``--config``; ``text`` describes it."""
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        action=_Recipes,
        metavar="RECIPE",
        help=f"{text}: your own file, or the name of a shipped one (`mindyolo-ext recipes`), such "
        "as yolox-s; a second --config, such as ascend, overrides the first (default: the one of "
        "--model)",
    )
    parser.set_defaults(overlays=[])


def add_set(parser: argparse.ArgumentParser, text: str = "any key of the recipe") -> None:
    """``--set``."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help=f"{text} (`mindyolo-ext recipe` lists them); may be given several times (default: "
        "none)",
    )


def add_model(parser: argparse.ArgumentParser, default: str = "the one of --config") -> None:
    """Add ``--model``; ``default`` describes the model without it."""
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="one of `mindyolo-ext models`, such as yolox-nano; selects its shipped recipe, in "
        f"place of --config (default: {default})",
    )


def add_recipe(parser: argparse.ArgumentParser, *, model_default: str = "") -> None:
    """Add ``--config``, ``--model``, ``--data``, and flags for the settings that most verbs use.

    Args:
        model_default: the model without ``--config`` and ``--model``, for ``--help``.
    """
    add_config(parser)
    add_model(parser, *filter(None, [model_default]))
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="data set that replaces the recipe's: a data.yaml of ultralytics or Roboflow, the "
        "folder that holds it, or a darknet-style .data file, which sets more (default: the "
        "recipe's)",
    )
    add_setting(parser, "--data_root", "data.root", metavar="DIR")
    add_size(parser)
    add_workers(parser)
    levels = ["O0", "O1", "O2", "O3"]
    add_setting(parser, "--ms_amp_level", "train.amp_level", type=str.upper, choices=levels)
    add_setting(parser, "--amp_dtype", "train.amp_dtype", choices=["float16", "bfloat16"])
    add_compiler(parser)
    add_setting(parser, "--conf_thres", "eval.conf_thres", type=float)
    add_setting(parser, "--iou_thres", "eval.iou_thres", type=float)
    add_set(parser)


def add_compiler(parser: argparse.ArgumentParser) -> None:
    """Add options of MindSpore's compiler, under MindYOLO's names."""
    levels = ["O0", "O1", "O2"]
    add_setting(parser, "--ms_jit_level", "train.jit_level", type=str.upper, choices=levels)
    add_switch(parser, "--ms_enable_graph_kernel", "train.graph_kernel")
    add_setting(parser, "--precision_mode", "train.precision_mode", metavar="MODE")


def add_route(parser: argparse.ArgumentParser) -> None:
    """Add the flags that decide which images are easy for a routed model."""
    which = parser.add_mutually_exclusive_group()
    threshold = which.add_argument(
        "--dy_thres",
        type=float,
        metavar="T",
        help="routed models only: images with an easiness below T take the second exit; 0 sends "
        "all to the first, 1 all to the second (default: stored in the checkpoint)",
    )
    note_setting(parser, threshold, "eval.dy_thres")
    which.add_argument(
        "--easy",
        type=float,
        metavar="SHARE",
        help="routed models only: target share of easy images, in 0..1; needs the thresholds that "
        "`mindyolo-ext thresholds` stores in the checkpoint (default: use --dy_thres)",
    )

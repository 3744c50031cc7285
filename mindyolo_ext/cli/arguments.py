"""Arguments that several verbs share, and the types of their values."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

DEVICES = ("CPU", "GPU", "Ascend")


@dataclass(frozen=True)
class Verb:
    """One verb of the command.

    Args:
        name: as typed.
        run: what it does with the parsed options.
        add: adds its arguments to a parser; None for a verb without any.
        text: one line for ``--help``.
    """

    name: str
    run: Callable[[argparse.Namespace], None]
    add: Callable[[argparse.ArgumentParser], None] | None
    text: str


def true_or_false(text: str) -> bool:
    """``True`` or ``False``, in any case."""
    values = {"true": True, "false": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"wanted True or False, got {text!r}")
    return values[text.lower()]


def numbers(text: str) -> list[float]:
    """``1,2.5`` -> [1.0, 2.5]."""
    return [float(word) for word in text.split(",") if word.strip()]


def keyword(text: str) -> tuple[str, object]:
    """(name, value) of ``name=value``, the value as in YAML."""
    import yaml

    name, separator, value = text.partition("=")
    if not separator or not name.strip().isidentifier():
        raise argparse.ArgumentTypeError(f"wanted NAME=VALUE, got {text!r}")
    try:
        return name.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: the value is not valid YAML") from error


def add_bool(
    parser: argparse.ArgumentParser, flag: str, text: str | None, *, default: bool | None = None
) -> None:
    """A flag that takes ``True`` or ``False``, as MindYOLO's flags do."""
    parser.add_argument(flag, type=true_or_false, default=default, metavar="True|False", help=text)


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device_target``."""
    parser.add_argument(
        "--device_target",
        choices=DEVICES,
        help="where networks run; without it the best device that is there, which a line names",
    )


def add_size(parser: argparse.ArgumentParser) -> None:
    """``--img_size``."""
    parser.add_argument(
        "--img_size",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="network size: side, or height width",
    )


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Device, ranks, mode and cache."""
    add_device(parser)
    add_bool(parser, "--is_parallel", "join the ranks of mpirun or msrun", default=False)
    parser.add_argument(
        "--ms_mode", type=int, default=0, choices=[0, 1], help="0 graph, 1 pynative (debugging)"
    )
    parser.add_argument(
        "--compile_cache",
        type=Path,
        metavar="DIR",
        help="keep compiled graphs there: the next start with the same recipe skips the "
        "compilation",
    )


class _Recipes(argparse.Action):
    """The first file is the recipe, those of further uses are ``overlays`` over it."""

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


def add_config(parser: argparse.ArgumentParser, *, required: bool, text: str = "recipe") -> None:
    """``--config``, which ``text`` describes."""
    parser.add_argument(
        "--config",
        type=Path,
        action=_Recipes,
        required=required,
        help=f"{text}, one of configs/FAMILY/*.yaml or your own; a second --config, such as "
        "configs/ascend.yaml, is laid over the first",
    )
    parser.set_defaults(overlays=[])


def add_recipe(parser: argparse.ArgumentParser, *, config_required: bool) -> None:
    """``--config``, and flags for the settings that most verbs use."""
    add_config(parser, required=config_required)
    parser.add_argument(
        "--data_root", help="folder to which the recipe's data paths refer (data.root)"
    )
    parser.add_argument(
        "--data", help="darknet-style .data file: what it says wins over the recipe"
    )
    add_size(parser)
    parser.add_argument("--workers", type=int, help="data workers (data.workers)")
    parser.add_argument(
        "--ms_amp_level",
        choices=["O0", "O1", "O2", "O3"],
        help="mixed precision (train.amp_level): O0 none, O1 convolutions, O2 and O3 maps too",
    )
    parser.add_argument(
        "--amp_dtype",
        choices=["float16", "bfloat16"],
        help="half precision of --ms_amp_level (train.amp_dtype)",
    )
    add_compiler(parser)
    parser.add_argument("--conf_thres", type=float, help="lowest score (eval.conf_thres)")
    parser.add_argument("--iou_thres", type=float, help="IoU of NMS (eval.iou_thres)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="any key of the recipe (`mindyolo-ext recipe` lists them); may be given several times",
    )


def add_compiler(parser: argparse.ArgumentParser) -> None:
    """Options of MindSpore's compiler, called as in MindYOLO."""
    parser.add_argument(
        "--ms_jit_level",
        choices=["O0", "O1", "O2"],
        help="MindSpore's compiler (train.jit_level): by kernel, fused kernels, whole graphs",
    )
    add_bool(
        parser,
        "--ms_enable_graph_kernel",
        "MindSpore on GPU and Ascend: fuse operators (train.graph_kernel)",
    )
    parser.add_argument(
        "--precision_mode",
        metavar="MODE",
        help="MindSpore on Ascend: half precision of the compiler's choice (train.precision_mode)",
    )


def add_route(parser: argparse.ArgumentParser) -> None:
    """Which images of a routed model are easy."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--dy_thres",
        type=float,
        metavar="T",
        help="of a routed model: images whose easiness is "
        "below T take the second exit; 0 sends all to the first, 1 all to the second",
    )
    which.add_argument(
        "--easy",
        type=float,
        metavar="SHARE",
        help="of a routed model: share of easy images to aim "
        "at, in 0..1, by the thresholds in the checkpoint (`mindyolo-ext thresholds`)",
    )

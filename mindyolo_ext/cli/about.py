"""``mindyolo-ext info``, ``models``, ``recipe``, ``doctor`` and ``demo``: what there is."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from mindyolo_ext.cli.arguments import add_config, add_device

if TYPE_CHECKING:
    from mindyolo_ext.contracts import Family

logger = logging.getLogger("mindyolo_ext")


def add_info(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``info``."""
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--gflops",
        action="store_true",
        help="count the operations too, at the checkpoint's input size; builds the network",
    )


def info(options: argparse.Namespace) -> None:
    """Print what a checkpoint or exported file holds."""
    from mindyolo_ext.checkpoint.inspect import describe

    logger.info("\n%s", describe(options.file).table())
    if options.gflops:
        from mindyolo_ext.backend import launch

        launch.start("CPU")
        from mindyolo_ext.engine.flops import describe_gflops

        logger.info("%s", describe_gflops(options.file))


def add_models(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``models``."""
    parser.add_argument(
        "family", nargs="?", help="one family: " + ", ".join(_families()) + "; all if not given"
    )


def models(options: argparse.Namespace) -> None:
    """Print the models of all families, or of one, with published and counted numbers."""
    from mindyolo_ext.models.registry import family

    records = _families().values() if options.family is None else [family(options.family)]
    logger.info("\n%s", "\n\n".join(map(_family_table, records)))


def _families() -> "dict[str, Family]":
    from mindyolo_ext.models.registry import families

    return families()


def _family_table(record: "Family") -> str:
    """A family's origin and terms, and a row per model. What is published and what was counted
    here have columns of their own.
    """
    from tabulate import tabulate

    facts = list(dict.fromkeys(what for v in record.variants.values() for what in v.published))
    columns = [
        "model",
        "title",
        "input",
        "counted here\nparameters",
        *("published\n" + fact.replace(", ", ",\n") for fact in facts),
    ]
    rows = [
        [
            name,
            variant.title,
            "{}x{}".format(*variant.input_size),
            f"{variant.parameters:,}",
            *(variant.published.get(fact, "") for fact in facts),
        ]
        for name, variant in record.variants.items()
    ]
    head = f"{record.title} ({record.name})\n{record.repository}\n{record.terms}"
    table = tabulate(rows, columns, tablefmt="simple", disable_numparse=True)
    return f"{head}\n\n{table}"


def add_recipe_verb(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``recipe``."""
    parser.add_argument(
        "key",
        nargs="?",
        default="",
        help="setting or section to explain, for example train.schedule; all if not given",
    )
    add_config(parser, required=False, text="print this recipe instead, merged with its parents")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change a key of --config; may be given several times",
    )
    parser.add_argument("--markdown", action="store_true", help="all settings as docs/recipe.md")


def recipe(options: argparse.Namespace) -> None:
    """Print the settings of a recipe, or a recipe itself."""
    from mindyolo_ext.config import load_config
    from mindyolo_ext.config.describe import markdown, recipe_text, table

    if options.config is not None:
        text = recipe_text(load_config(options.config, options.set, overlays=options.overlays))
    else:
        text = markdown() if options.markdown else table(options.key)
    logger.info("%s", text.rstrip("\n"))


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``doctor``."""
    add_device(parser)
    parser.add_argument(
        "--report",
        type=Path,
        nargs="?",
        const=Path("mindyolo_ext_report.json"),
        metavar="FILE",
        help="write versions, devices, environment and the numbers of a small training step, for "
        "a bug report",
    )


def doctor(options: argparse.Namespace) -> None:
    """Print versions, device and settings, or write them with a trial of every part."""
    if options.report is None:
        from mindyolo_ext.engine.doctor import report

        logger.info("\n%s", report(options.device_target))
        return
    from mindyolo_ext.backend.launch import world
    from mindyolo_ext.engine.doctor_report import write_report

    lines = write_report(options.report, options.device_target)
    if world().is_main:
        logger.info("%s\n%s", lines, options.report)


def add_demo(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``demo``."""
    parser.add_argument("--save_dir", type=Path, default=Path("runs/demo"))
    parser.add_argument("--ranks", type=int, default=2)


def demo(options: argparse.Namespace) -> None:
    """Run the demo."""
    from mindyolo_ext.engine.demo import run

    run(options.save_dir, ranks=options.ranks)

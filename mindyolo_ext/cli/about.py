"""The verbs info, models, recipes, recipe, doctor and demo."""

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mindyolo_ext.cli.arguments import add_config, add_device, add_model, add_set
from mindyolo_ext.cli.recipe import recipe_path

if TYPE_CHECKING:
    from mindyolo_ext.contracts import Family

logger = logging.getLogger("mindyolo_ext")


def add_info(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``info``."""
    parser.add_argument("file", type=Path, help="checkpoint or exported file")
    parser.add_argument(
        "--gflops",
        action="store_true",
        help="also count the operations at the checkpoint's input size (builds the network)",
    )


def info(options: argparse.Namespace) -> None:
    """Print what a checkpoint or exported file holds."""
    from mindyolo_ext.checkpoint.inspect import describe
    from mindyolo_ext.runtimes.inspect import FORMATS, describe_exported

    is_derived = options.file.suffix.lower() in FORMATS
    logger.info("\n%s", (describe_exported if is_derived else describe)(options.file).table())
    if options.gflops:
        from mindyolo_ext.backend import launch

        launch.start("CPU")
        from mindyolo_ext.engine.flops import describe_gflops

        logger.info("%s", describe_gflops(options.file))


def add_models(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``models``."""
    parser.add_argument(
        "family",
        nargs="?",
        help="one family, with every number its authors publish: "
        + ", ".join(_families())
        + " (default: a short table of all families)",
    )


def models(options: argparse.Namespace) -> None:
    """Print a short table of all models, or every published number of one family."""
    from mindyolo_ext.models.registry import family

    if options.family is not None:
        record = family(options.family)
        text = f"{_family_table(record)}\n\n{_weights_table([record])}"
    else:
        records = list(_families().values())
        text = f"{_brief_table(records)}\n\n{_weights_table(records)}\n\n{_terms(records)}"
    logger.info("\n%s", text)


def _families() -> "dict[str, Family]":
    from mindyolo_ext.models.registry import families

    return families()


def _brief_table(records: "Sequence[Family]") -> str:
    """One row per model: published cost and accuracy, and the number of parameters counted here."""
    from tabulate import tabulate

    rows = []
    for name, variant in [pair for record in records for pair in record.variants.items()]:
        published = variant.published
        accuracy = next((fact for fact in published if fact.startswith("AP")), "")
        accuracy = accuracy.partition(",")[0] if accuracy.endswith("easy") else accuracy
        rows.append(
            (
                name,
                "{}x{}".format(*variant.input_size),
                f"{variant.parameters:,}",
                _span(published, "GFLOPs"),
                _span(published, accuracy),
                accuracy,
            )
        )
    columns = ("model", "input", "parameters", "GFLOPs\npublished", "AP, %\npublished", "")
    align = ("left", "left", "right", "right", "right", "left")
    return tabulate(rows, columns, tablefmt="simple", disable_numparse=True, colalign=align)


def _span(published: "Mapping[str, float]", fact: str) -> str:
    """Format the value of a fact; a routed model has a range over all shares of easy images."""
    every = published.items()
    values = [value for what, value in every if fact in (what, what.partition(",")[0])]
    if not fact or not values:
        return "-"
    return f"{min(values)}" if len(values) == 1 else f"{min(values)}..{max(values)}"


def _weights_table(records: "Sequence[Family]") -> str:
    """List where the authors publish the weights of each model."""
    from tabulate import tabulate

    rows = [
        (name, variant.weights or "none published")
        for record in records
        for name, variant in record.variants.items()
    ]
    columns = ("model", "published weights, for `mindyolo-ext convert`")
    return tabulate(rows, columns, tablefmt="simple", disable_numparse=True)


def _terms(records: "Sequence[Family]") -> str:
    """List the original repository and the license terms of each family."""
    from tabulate import tabulate

    rows = [(record.name, record.repository, record.terms) for record in records]
    columns = ("family", "original", "terms of the original and its weights")
    return tabulate(rows, columns, tablefmt="simple", disable_numparse=True)


def _family_table(record: "Family") -> str:
    """Format a family's origin and license terms, and one row per model with published and counted
    values in separate columns.
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


def add_recipes(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``recipes``."""
    parser.add_argument(
        "family",
        nargs="?",
        help="one family: " + ", ".join(_families()) + " (default: all)",
    )


def recipes(options: argparse.Namespace) -> None:
    """Print the shipped recipes: name, model, and the first sentence of the file."""
    from tabulate import tabulate

    from mindyolo_ext.config import load_config
    from mindyolo_ext.config.shipped import headline, recipe_folder, shipped_recipes
    from mindyolo_ext.models.registry import family

    wanted = None if options.family is None else family(options.family).name
    rows, parts = [], []
    for name in shipped_recipes():
        model = load_config(name).model.name
        if not model:
            parts.append(name)
        elif wanted in (None, name.partition("/")[0]):
            rows.append((name.rpartition("/")[2], model, headline(name)))
    table = tabulate(rows, ("recipe", "model", "purpose"), tablefmt="simple")
    tail = "" if wanted else f"\n\nfor a second --config, or __BASE__: {', '.join(parts)}"
    logger.info("\n%s%s\n\nfolder: %s", table, tail, recipe_folder())


def add_recipe_verb(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``recipe``."""
    parser.add_argument(
        "key",
        nargs="?",
        default="",
        help="setting or section to explain, for example train.schedule (default: all)",
    )
    add_config(parser, text="print this recipe instead, merged with its parents")
    add_model(parser)
    add_set(parser, "change a key of this recipe")
    parser.add_argument("--markdown", action="store_true", help="all settings as docs/recipe.md")


def recipe(options: argparse.Namespace) -> None:
    """Print the settings of a recipe, or a recipe itself."""
    from mindyolo_ext.config import load_config
    from mindyolo_ext.config.describe import markdown, recipe_text, table

    path = recipe_path(options)
    if path is not None:
        text = recipe_text(load_config(path, options.set, overlays=options.overlays))
    else:
        text = markdown() if options.markdown else table(options.key)
    logger.info("%s", text.rstrip("\n"))


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``doctor``."""
    add_device(parser)
    parser.add_argument(
        "--report",
        type=Path,
        nargs="?",
        const=Path("mindyolo_ext_report.json"),
        metavar="FILE",
        help="write versions, devices, environment and the results of a small training step to "
        "this file, for a bug report (default: print a summary)",
    )


def doctor(options: argparse.Namespace) -> None:
    """Print versions, device and settings, or run a check of every part and write a report."""
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
    """Add the arguments of ``demo``."""
    parser.add_argument(
        "--save_dir", type=Path, default=Path("runs/demo"), help="folder for everything it writes"
    )
    parser.add_argument("--ranks", type=int, default=2, help="processes that train together")


def demo(options: argparse.Namespace) -> None:
    """Run the demo."""
    from mindyolo_ext.engine.demo import run

    run(options.save_dir, ranks=options.ranks)

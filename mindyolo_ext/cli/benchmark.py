"""``mindyolo-ext benchmark``: one network in several runtimes."""

import argparse
import logging
from pathlib import Path

from mindyolo_ext.cli.arguments import add_recipe, add_split
from mindyolo_ext.cli.recipe import read_recipe
from mindyolo_ext.errors import UsageError

logger = logging.getLogger("mindyolo_ext")


def add_benchmark(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``benchmark``."""
    from mindyolo_ext.runtimes.names import RUNTIMES

    add_recipe(parser, model_default="the one of --config, else of --weight")
    parser.add_argument(
        "--weight",
        type=Path,
        required=True,
        help="checkpoint, exported for each runtime that needs it, or an exported file",
    )
    parser.add_argument(
        "--runtimes",
        nargs="+",
        required=True,
        choices=RUNTIMES,
        metavar="NAME",
        help=f"runtimes to compare: {', '.join(RUNTIMES)}",
    )
    add_split(parser)
    parser.add_argument(
        "--threads", type=int, default=0, help="threads per network; 0 lets each runtime decide"
    )
    parser.add_argument(
        "--images", type=int, help="number of images to run, without AP (default: all)"
    )
    parser.add_argument(
        "--save_dir",
        type=Path,
        default=Path("runs/benchmark"),
        help="folder for the table and the exported files",
    )


def benchmark(options: argparse.Namespace) -> None:
    """Measure ``--weight`` in each of ``--runtimes`` on the CPU."""
    if options.threads < 0 or (options.images is not None and options.images < 1):
        raise UsageError(
            f"benchmark: wanted --threads of at least 0 and --images of at least 1, got "
            f"{options.threads} and {options.images}"
        )
    config = read_recipe(options, extra=options.set, weight=options.weight)
    from mindyolo_ext.engine.benchmark import FILES
    from mindyolo_ext.engine.benchmark import benchmark as run
    from mindyolo_ext.engine.check import check_recipe

    check_recipe(config)
    found = run(
        options.weight,
        options.runtimes,
        config,
        options.save_dir,
        split=options.split,
        threads=options.threads,
        images=options.images,
    )
    logger.info("\n%s\n\n%s: %s", found.table(), ", ".join(FILES), options.save_dir)

"""``--backend``: the framework that a command runs on."""

import argparse

from mindyolo_ext.errors import UsageError
from mindyolo_ext.framework import FRAMEWORKS, VARIABLE


def add_backend(parser: argparse.ArgumentParser) -> None:
    """``--backend``."""
    parser.add_argument(
        "--backend",
        choices=FRAMEWORKS,
        help=f"framework (default: that of {VARIABLE}, else mindspore if it is installed, else "
        "torch)",
    )


def asked(options: argparse.Namespace) -> str | None:
    """Return the framework in ``--backend``, or in ``--runtime`` if that names one, else None.

    Raises: UsageError if they name two.
    """
    runtime = vars(options).get("runtime")
    if runtime not in FRAMEWORKS or options.backend in (None, runtime):
        return options.backend or (runtime if runtime in FRAMEWORKS else None)
    raise UsageError(
        f"--backend {options.backend} and --runtime {runtime} name two frameworks; leave one out"
    )

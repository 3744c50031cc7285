"""``--backend``: the framework that a command runs on, chosen before anything imports it."""

import argparse
import os
import sys

from mindyolo_ext.errors import UsageError

VARIABLE = "MINDYOLO_EXT_BACKEND"  # as backend.choice, whose import would make the choice
BACKENDS = ("mindspore", "torch")


def add_backend(parser: argparse.ArgumentParser) -> None:
    """``--backend``."""
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        help=f"framework (default: that of {VARIABLE}, else mindspore if it is installed, else "
        "torch)",
    )


def choose(name: str | None) -> None:
    """Select the framework of this process and the processes it starts; None leaves it open.

    Raises: UsageError if another one was imported before.
    """
    if name is None:
        return
    loaded = sys.modules.get("mindyolo_ext.backend")
    present = name if loaded is None else loaded.BACKEND
    if present != name:
        raise UsageError(
            f"--backend {name}: this process already runs on {present}; start a new one, or set "
            f"{VARIABLE}={name} before it starts"
        )
    os.environ[VARIABLE] = name


def asked(options: argparse.Namespace) -> str | None:
    """Return the framework in ``--backend``, or in ``--runtime`` if that names one, else None.

    Raises: UsageError if they name two.
    """
    runtime = vars(options).get("runtime")
    if runtime not in BACKENDS or options.backend in (None, runtime):
        return options.backend or (runtime if runtime in BACKENDS else None)
    raise UsageError(
        f"--backend {options.backend} and --runtime {runtime} name two frameworks; leave one out"
    )


def follow(recipe: str) -> None:
    """Select the backend that a recipe names, unless ``--backend``, the environment or an earlier
    import has selected one. Training checks that it runs on the recipe's backend.
    """
    if not os.environ.get(VARIABLE) and "mindyolo_ext.backend" not in sys.modules:
        choose(recipe or None)

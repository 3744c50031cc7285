"""Choose the framework that this process runs on; only the modules of ``backend`` use this module.

The environment variable ``MINDYOLO_EXT_BACKEND`` names it. The default is MindSpore if it is
installed, else PyTorch. ``shapes`` is a backend that only declares parameters, for
``checkpoint.outline``.
"""

import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Callable

from mindyolo_ext.errors import ConfigError, MissingPackageError, UsageError, did_you_mean
from mindyolo_ext.framework import FRAMEWORKS, VARIABLE

BACKENDS = (*FRAMEWORKS, "shapes")
OLDEST_TORCH = (2, 4)
INSTALL = {"mindspore": "pip install mindspore", "torch": "pip install 'torch>=2.4'"}


def installed_version(framework: str) -> str | None:
    """Return the version of a framework's package, empty if it has none; None if the package is not
    installed. Imports nothing.
    """
    if importlib.util.find_spec(framework) is None:
        return None
    try:
        return importlib.metadata.version(framework)
    except importlib.metadata.PackageNotFoundError:
        return ""


def chosen(name: str, version_of: Callable[[str], str | None] = installed_version) -> str:
    """Return ``name``, or the default backend if it is empty.

    Args:
        version_of: returns the version of a framework, None if it is not installed.

    Raises: UsageError for an unknown name; MissingPackageError if its framework is not installed,
        or is too old.
    """
    if name and name not in BACKENDS:
        raise UsageError(f"{VARIABLE}={name}: no such backend{did_you_mean(name, INSTALL)}")
    if name == "shapes":
        return name
    present = [framework for framework in INSTALL if version_of(framework) is not None]
    if not name and not present:
        raise MissingPackageError(
            "neither MindSpore nor PyTorch is installed: "
            + " or ".join(f"`{command}`" for command in INSTALL.values())
        )
    name = name or present[0]
    other = "".join(
        f", or use {x}, which is installed: `--backend {x}` (or {VARIABLE}={x})"
        for x in present
        if x != name
    )
    if name not in present:
        raise MissingPackageError(f"the backend {name} is not installed: `{INSTALL[name]}`{other}")
    version = version_of(name) or ""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if name == "torch" and numbers < OLDEST_TORCH:
        oldest = ".".join(str(number) for number in OLDEST_TORCH)
        raise MissingPackageError(
            f"the backend torch requires PyTorch {oldest} or later, got "
            f"{version or 'an unknown version'}: `{INSTALL[name]}`{other}"
        )
    return name


BACKEND = chosen(os.environ.get(VARIABLE, ""))


def check_backend(name: str | None) -> None:
    """Check that this process runs on ``name``; None accepts any backend.

    Raises: UsageError if it runs on another one.
    """
    if name is not None and name != BACKEND:
        raise UsageError(
            f"backend={name!r}: this process runs on {BACKEND}; set {VARIABLE}={name} in the "
            "environment before mindyolo_ext is imported"
        )


def running_for(recipe: str) -> str:
    """Return the backend that this process runs on.

    Args:
        recipe: the recipe's ``train.backend``; empty accepts any.

    Raises: ConfigError if it runs on another one.
    """
    if recipe not in ("", BACKEND):
        raise ConfigError(
            f"config: train.backend is {recipe}, but this process runs on {BACKEND}; start with "
            f"`--backend {recipe}` (or {VARIABLE}={recipe}), or train on {BACKEND} with `--backend "
            f"{BACKEND}`"
        )
    return BACKEND

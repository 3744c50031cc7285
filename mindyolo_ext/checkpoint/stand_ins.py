"""Provide empty modules for packages that an original program imports but does not need.

Families' ``original.py`` scripts run in the user's own Python, without this package:
``run_original`` provides this file to them as the module ``stand_ins``.
"""

import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any


class StandIn(types.ModuleType):
    """A module that has every attribute; each is another stand-in and can be called."""

    __path__: list[str] = []

    def __init__(self, name: str):
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn(name)

    def __call__(self, *_: object, **__: object) -> None:
        return None


def replace_missing(packages: Mapping[str, Sequence[str]]) -> None:
    """Register a stand-in for each package that is not installed.

    Args:
        packages: name -> submodules that the original imports.
    """
    for package, inside in packages.items():
        if importlib.util.find_spec(package) is None:
            for name in (package, *(f"{package}.{part}" for part in inside)):
                sys.modules[name] = StandIn(name)

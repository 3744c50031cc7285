"""Keep imports of moved modules and names working, with a DeprecationWarning that names the new
place. To be removed in 1.0.
"""

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_PACKAGE = __name__.rpartition(".")[0]
# former module -> name -> its new module; "*" covers all names that are not listed
_MOVED = {
    "backend.files": {
        "read_arrays": "checkpoint.store.read_parameters",
        "write_arrays": "checkpoint.ckpt_file.write_ckpt",
    },
    "checkpoint.errors": {"*": "errors"},
    "data.coco": {"*": "data.formats.coco"},
    "data.darknet": {"*": "data.formats.darknet"},
    "data.dataset": {
        "Annotations": "data.types.Annotations",
        "Collector": "data.collector.Collector",
        "Problem": "data.types.Problem",
        "Sample": "data.types.Sample",
        "build_dataset": "data.build.build_dataset",
    },
    "data.voc": {"*": "data.formats.voc"},
    "data.yolo_text": {
        "list_pictures": "data.formats.label_files.list_images",
        "*": "data.formats.yolo",
    },
}


def attributes(module: str) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for ``module`` (full name) that finds its former names."""
    table = _MOVED[module.removeprefix(f"{_PACKAGE}.")]

    def find(name: str) -> Any:
        home = table.get(name)
        if home is None and "*" in table and not name.startswith("__"):
            home = f"{table['*']}.{name}"
        if home is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        place, _, attribute = f"{_PACKAGE}.{home}".rpartition(".")
        found = getattr(importlib.import_module(place), attribute)
        message = f"{module}.{name} is now {place}.{attribute}"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return found

    return find


class _Former(MetaPathFinder, Loader):
    """Create an empty module for each former one, if no file defines that module."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        known = fullname.removeprefix(f"{_PACKAGE}.") in _MOVED
        return ModuleSpec(fullname, self) if known else None

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__getattr__"] = attributes(module.__name__)


def install() -> None:
    """Make former modules importable."""
    if not any(isinstance(finder, _Former) for finder in sys.meta_path):
        sys.meta_path.append(_Former())

"""Stand-ins for the objects of a foreign file: plain data without behavior.

None of these classes calls, imports or looks up anything; they only store what the file says.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class GlobalName:
    """A class or function that the file mentions by name. It is never imported and cannot be
    called.

    Args:
        module, name: as in the file, with Python 2 names converted to Python 3.
        kind: ``safe`` (rebuilt by our own code), ``class`` (instances become ``Record``),
            ``storage``, ``dtype`` or ``mention`` (allowed as a value, never instantiated).
        value: element type of a ``storage`` or ``dtype`` (NumPy name, ``bfloat16`` or None for
            bytes).
    """

    module: str
    name: str
    kind: str
    value: str | None = None

    @property
    def qualified(self) -> str:
        """``module.name``."""
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Record:
    """An instance of an unknown class: its arguments, its state, and its items if it is a
    container.
    """

    cls: GlobalName
    args: tuple = ()
    keywords: dict = field(default_factory=dict)
    state: dict[Any, Any] = field(default_factory=dict)
    list_items: list = field(default_factory=list)
    dict_items: dict = field(default_factory=dict)

    @property
    def qualified(self) -> str:
        """``module.Class``."""
        return self.cls.qualified

    @property
    def is_module(self) -> bool:
        """Whether the state is that of a ``torch.nn.Module``."""
        return all(
            isinstance(self.state.get(key), dict) for key in ("_parameters", "_buffers", "_modules")
        )


@dataclass(frozen=True, eq=False)
class StorageRecord:
    """A block of numbers in the file: ``count`` elements of ``dtype`` (None: bytes) under
    ``key``.
    """

    key: str
    dtype: str | None
    count: int
    offset: int = 0  # elements, for a storage that is a view of another


@dataclass(frozen=True, eq=False)
class TensorRecord:
    """A strided view of a storage; ``offset`` and ``stride`` count elements of ``dtype``."""

    storage: StorageRecord
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of elements."""
        total = 1
        for size in self.shape:
            total *= size
        return total


@dataclass(eq=False)
class DtypeRecord:
    """A NumPy dtype under construction: a code such as ``f4`` and its byte order."""

    code: str
    order: str = "="

    def resolve(self) -> np.dtype | None:
        """Return the dtype, or None for Python objects and structures, which are not read."""
        if self.code[:1] not in "biufcSU" or self.code[:1] == "":
            return None
        return np.dtype(self.code if self.order in "=|" else self.order + self.code)


@dataclass(eq=False)
class ArrayRecord:
    """A NumPy array or scalar under construction; ``value`` is None until its state is read."""

    value: np.ndarray | None = None
    scalar: bool = False

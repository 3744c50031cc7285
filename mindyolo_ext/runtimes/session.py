"""Interface of a file that is open in a runtime."""

from collections.abc import Mapping
from typing import Protocol, TypeAlias

import numpy as np

from mindyolo_ext.errors import CheckpointError, MissingPackageError
from mindyolo_ext.runtimes.names import EXPORTED

Shape: TypeAlias = tuple[int | None, ...]  # None: any size
Arrays: TypeAlias = dict[str, np.ndarray]


class Session(Protocol):
    """An exported network, ready to run. Threads may call it at the same time.

    Attributes:
        inputs: shape by name.
        outputs: names.
        device: where it runs, as readable text.
    """

    inputs: Mapping[str, Shape]
    outputs: tuple[str, ...]
    device: str

    def run(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """Run the network and return all outputs by name; extra ``arrays`` are ignored."""


def missing(runtime: str, error: ImportError) -> MissingPackageError:
    """Return the error for a runtime whose package is not installed."""
    facts = EXPORTED[runtime]
    return MissingPackageError(
        f"--runtime {runtime}: {facts.title} is not installed ({error}): `{facts.install}`"
    )


def unreadable(path: object, runtime: str, error: Exception) -> CheckpointError:
    """Return the error for a file that a runtime cannot load, with the runtime's first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0] if lines else type(error).__name__
    return CheckpointError(f"{path}: {EXPORTED[runtime].title} cannot load it ({reason[:300]})")

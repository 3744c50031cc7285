"""Helpers for the golden tests of all families: reference files, seeded weights, padded targets,
gradients.
"""

import os
import re
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ledger import Arrays, Record
from seeded import seeded_boxes, seeded_images, seeded_state_dict

from mindyolo_ext.backend.parameters import load_parameters
from mindyolo_ext.contracts import Cell

DEFAULT_GOLDEN = Path(__file__).resolve().parent / "golden"
REPOSITORY = Path(__file__).resolve().parent.parent
Command = Callable[..., tuple[int, str]]  # of the fixture ``command``
LEAVES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def shared_folder() -> Path | None:
    """The folder of published weights and images, MINDYOLO_EXT_SHARED or ../shared, if any."""
    folder = Path(os.environ.get("MINDYOLO_EXT_SHARED", REPOSITORY.parent / "shared"))
    return folder if folder.is_dir() else None


@dataclass(frozen=True)
class Golden:
    """A folder of reference arrays."""

    root: Path
    record: Record = field(default_factory=Record, compare=False)

    def arrays(self, relative: str) -> Arrays:
        """All arrays of one file. The test is skipped if a folder other than the default lacks
        it.
        """
        path = self.root / relative
        if not path.is_file() and self.root != DEFAULT_GOLDEN:
            pytest.skip(f"{self.root} has no {relative}")
        return Arrays(path, self.record)


@dataclass(frozen=True)
class GoldenCase:
    """One seeded case: ``<root>/<family>/<variant>/case_seed<N>*.npz``; everything else follows
    from N and the arrays.

    A variant may have subfolders: ``gold_yolo_n/plain`` is the name of one.
    """

    path: Path
    family_folder: Path
    default: bool  # in the default folder, so every array must exist
    record: Record = field(default_factory=Record, compare=False)

    def __str__(self) -> str:
        return f"{self.variant}-{self.path.stem}"

    @property
    def variant(self) -> str:
        return self.path.parent.relative_to(self.family_folder).as_posix()

    @property
    def seed(self) -> int:
        return int(re.match(r"case_seed(\d+)", self.path.name).group(1))

    @property
    def is_plain(self) -> bool:
        """Whether it is a variant's usual case, not an extra one of another size."""
        return self.path.stem == f"case_seed{self.seed}"

    def arrays(self) -> Arrays:
        return Arrays(self.path, self.record)

    @property
    def variant_folder(self) -> Path:
        """Folder of ``keys.json`` and the like: beside the case, or else the default folder."""
        return self.folder_of(self.variant)

    def folder_of(self, variant: str) -> Path:
        """``variant_folder`` for any variant of the family."""
        beside = self.family_folder / variant
        return (
            beside
            if (beside / "keys.json").is_file()
            else DEFAULT_GOLDEN / self.family_folder.name / variant
        )

    def weights(self) -> dict[str, np.ndarray]:
        """The seeded state dict under the original's names."""
        return seeded_state_dict(self.variant_folder, self.seed)

    def images(self, batch: int, height: int, width: int) -> np.ndarray:
        return seeded_images(self.seed, batch, height, width)

    def boxes(self, batch: int, per_image: int, num_classes: int) -> np.ndarray:
        return seeded_boxes(self.seed, batch, per_image, num_classes)


def quick_cases(
    values: Iterable[Any], quick: Container[Any], name: Callable[[Any], str] | None = None
) -> list[Any]:
    """Values for ``parametrize``; those that are not in ``quick`` need --all-cases.

    Args:
        values: tuples are values of several parameters.
        quick: what runs in `make test`.
        name: of a value in the test's name.
    """
    return [
        pytest.param(
            *(value if isinstance(value, tuple) else (value,)),
            id=name(value) if name else None,
            marks=[] if value in quick else [pytest.mark.all_cases],
        )
        for value in values
    ]


def golden_cases(root: Path, family: str, record: Record | None = None) -> list[GoldenCase]:
    """The seeded cases of a family below ``root``, sorted; ``record`` learns what is read."""
    folder = (root / family).resolve()
    default = root.resolve() == DEFAULT_GOLDEN
    return [
        GoldenCase(path, folder, default, record or Record())
        for path in sorted(folder.glob("*/**/case_seed*.npz"))
    ]


def original_name(name: str) -> str:
    """Our parameter name with the leaf that PyTorch uses."""
    parent, leaf = name.rsplit(".", 1)
    return f"{parent}.{LEAVES.get(leaf, leaf)}"


def load_weights(cell: Cell, weights: dict[str, np.ndarray]) -> None:
    """Fill every parameter of ``cell`` with the entry of the original's name."""
    names = dict(cell.parameters_and_names())
    load_parameters(cell, {name: weights[original_name(name)] for name in names})


def padded_targets(rows: np.ndarray, batch: int, boxes: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, 6) image, class, cx, cy, w, h -> targets (batch, boxes, 5) and mask (batch,
    boxes).
    """
    targets, mask = np.zeros((batch, boxes, 5), np.float32), np.zeros((batch, boxes), np.float32)
    for image in range(batch):
        own = rows[rows[:, 0] == image][:, 1:]
        assert len(own) <= boxes, f"{len(own)} boxes do not fit into {boxes}"
        targets[image, : len(own)], mask[image, : len(own)] = own, 1
    return targets, mask


def relative_l2(got: np.ndarray, wanted: np.ndarray) -> float:
    """Norm of the difference over the norm of ``wanted``."""
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))


def assert_same(tensors: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """Same names in the same order, and the same types, shapes and bytes."""
    assert list(tensors) == list(wanted)
    for name, array in wanted.items():
        assert (tensors[name].dtype, tensors[name].shape) == (array.dtype, array.shape), name
        assert tensors[name].tobytes() == array.tobytes(), name


def rounded(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights after a half-precision file."""
    return {
        name: array.astype(np.float16).astype(np.float32) if array.dtype.kind == "f" else array
        for name, array in state.items()
    }

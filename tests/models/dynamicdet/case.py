"""Helpers for the tests of DynamicDet's stored cases."""

import json

import numpy as np
from helpers import GoldenCase

from mindyolo_ext.backend import nn
from mindyolo_ext.backend.parameters import load_parameters
from mindyolo_ext.checkpoint.names import source_names
from mindyolo_ext.checkpoint.tables import table_of
from mindyolo_ext.models.registry import create_model

SIDE, BATCH, CLASSES = 192, 2, 80
BOXES = 6  # per image of the seeded cases
LEAP = 13  # between the rows of thinned arrays


def meta_of(case: GoldenCase) -> dict:
    return json.loads((case.variant_folder / "meta.json").read_text())


def original_names(model: nn.Cell, case: GoldenCase) -> dict[str, str]:
    """Our name of each parameter -> the original's."""
    return source_names(table_of("dynamicdet"), dict(model.parameters_and_names()), case.variant)


def load_seeded(model: nn.Cell, case: GoldenCase) -> None:
    """Load the case's seeded weights under the original's names."""
    weights, names = case.weights(), original_names(model, case)
    load_parameters(model, {own: weights[name] for own, name in names.items()})


def seeded_model(case: GoldenCase, *, router: bool = True) -> nn.Cell:
    """The case's network with its seeded weights; without the router as in training step 1."""
    model = create_model(case.variant, router=router)
    load_seeded(model, case)
    return model


def stored_maps(
    arrays: dict[str, np.ndarray], prefix: str, levels: int
) -> list[tuple[np.ndarray, int]]:
    """For each level, the stored numbers of a raw map, flat, and the stride between them."""
    found = []
    for level in range(levels):
        name = f"{prefix}_l{level}"
        leap = next(
            (
                step
                for step in (1, LEAP, 1013)
                if f"{name}{'' if step == 1 else f'_s{step}'}" in arrays
            ),
            None,
        )
        assert leap is not None, f"the case has no {name}"
        found.append((arrays[name if leap == 1 else f"{name}_s{leap}"].reshape(-1), leap))
    return found


def in_original_order(head: np.ndarray) -> np.ndarray:
    """A raw map (B, 3 (5 + K), h, w) as the original stores it, (B, 3, h, w, 5 + K)."""
    batch, channels, height, width = head.shape
    return head.reshape(batch, 3, channels // 3, height, width).transpose(0, 1, 3, 4, 2)


def gradient_order(case: GoldenCase, model: nn.Cell, listed: str = "grad_names.json") -> list[int]:
    """Positions among the trainable parameters of ``model``, in the order of the case's gradient
    arrays.
    """
    names = original_names(model, case)
    places = {
        names[name]: i
        for i, (name, _) in enumerate(
            (n, p) for n, p in model.parameters_and_names() if p.requires_grad
        )
    }
    return [places[name] for name in json.loads((case.variant_folder / listed).read_text())]

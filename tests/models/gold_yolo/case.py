"""What the tests of Gold-YOLO's stored cases share."""

import json

import numpy as np
import pytest
from helpers import GoldenCase, load_weights
from seeded import seeded_state_dict

from mindyolo_ext.backend import nn
from mindyolo_ext.models.registry import create_model

# inside a scale's folder; the scale's own is fuse_ab
FOLDERS = {"plain": "plain", "distill": "distill"}
SIDE, BATCH, CLASSES = 192, 2, 80
BOXES = 6  # per image of the seeded cases


def scale_of(case: GoldenCase) -> str:
    """Registry name of the case's model."""
    return case.variant.split("/")[0]


def training_step(case: GoldenCase) -> str:
    """``fuse_ab``, ``plain`` or ``distill``: what the case's arrays are of."""
    return FOLDERS.get(case.variant.split("/")[-1], "fuse_ab")


def form_of(case: GoldenCase) -> str:
    """The model's form; the student of m and l is the plain one."""
    step = training_step(case)
    return "plain" if step == "distill" and scale_of(case)[-1] in "ml" else step


def meta_of(case: GoldenCase) -> dict:
    return json.loads((case.variant_folder / "meta.json").read_text())


def seeded_model(case: GoldenCase) -> nn.Cell:
    """The case's network with its seeded weights."""
    model = create_model(scale_of(case), form=form_of(case))
    load_weights(model, case.weights())
    return model


def seeded_teacher(case: GoldenCase) -> nn.Cell:
    """The network that the student of the case learns from: the step-1 form, with the next
    seed's weights.
    """
    teacher = create_model(scale_of(case), form="fuse_ab")
    load_weights(teacher, seeded_state_dict(case.folder_of(scale_of(case)), case.seed + 1))
    return teacher


def stored(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    """One array of the case; the test is skipped where its form has none."""
    if name not in arrays:
        pytest.skip(f"this form has no {name}")
    return arrays[name]

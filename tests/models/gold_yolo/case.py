"""Helpers for the tests of Gold-YOLO's stored cases."""

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
    """``fuse_ab``, ``plain`` or ``distill``: the training step of the case's arrays."""
    return FOLDERS.get(case.variant.split("/")[-1], "fuse_ab")


def form_of(case: GoldenCase) -> str:
    """The model's form; for m and l, the student has the plain form."""
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
    """The teacher of the case's student: the step-1 form, with the weights of the next seed."""
    teacher = create_model(scale_of(case), form="fuse_ab")
    load_weights(teacher, seeded_state_dict(case.folder_of(scale_of(case)), case.seed + 1))
    return teacher


def stored(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    """One array of the case; the test is skipped if its form does not have it."""
    if name not in arrays:
        pytest.skip(f"this form has no {name}")
    return arrays[name]

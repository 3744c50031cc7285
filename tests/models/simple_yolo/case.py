"""Networks of the simple YOLO's stored cases."""

import json

from helpers import GoldenCase, load_weights

from mindyolo_ext.backend import nn
from mindyolo_ext.models.registry import create_model

LEVELS = (0, 1, 2)


def meta_of(case: GoldenCase) -> dict:
    """Backbone, width, assignment and classes in the variant's file."""
    return json.loads((case.variant_folder / "meta.json").read_text())


def new_network(case: GoldenCase) -> nn.Cell:
    """The variant's network with fresh weights."""
    meta = meta_of(case)
    return create_model(
        f"simple_yolo_{meta['backbone_type']}",
        meta["num_class"],
        input_size=tuple(meta["input"][2:]),
        channel_sparsity=meta["channel_sparsity"],
        assignment=meta["label_assignment_method"],
    )


def seeded_network(case: GoldenCase) -> nn.Cell:
    """The variant's network with the case's weights."""
    model = new_network(case)
    load_weights(model, case.weights())
    return model


def as_stored(heads):
    """Raw heads (B, a * (5 + K), h, w) (arrays) as (B, a, h, w, 5 + K)."""
    return [x.reshape(len(x), 3, -1, *x.shape[2:]).transpose(0, 1, 3, 4, 2) for x in heads]


def thinned(got, wanted):
    """``got`` with only the images, rows or cells that ``wanted`` stores."""
    steps = [-(-g // w) for g, w in zip(got.shape[1:], wanted.shape[1:], strict=True)]
    return got[(slice(len(wanted)), *(slice(None, None, step) for step in steps))]

"""Rectangular batches: which images share one, how large it is, and what the loader makes of
them.
"""

import numpy as np
import pytest

from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.loader import Loader
from mindyolo_ext.data.rectangles import rectangular_batches
from mindyolo_ext.input_spec import InputSpec


@pytest.mark.parametrize(
    ("pad", "wanted"),
    [
        (0.5, [(352, 672), (672, 672), (672, 672), (672, 512)]),
        (0.0, [(320, 640), (640, 640), (640, 640), (640, 480)]),
    ],
)
def test_shapes_by_hand(pad: float, wanted: list) -> None:
    sizes = np.array(
        [[400, 300], [100, 200], [300, 300], [480, 640], [200, 100], [100, 400], [100, 100]], float
    )
    order, frames = rectangular_batches(sizes, 2, InputSpec(), pad)
    assert order.tolist() == [5, 1, 3, 2, 6, 0, 4]  # height / width 0.25 0.5 | 0.75 1 | 1 1.33 | 2
    assert frames[:3] == wanted[:3]
    assert frames[3] == ((672, 352) if pad else (640, 320))
    _, last = rectangular_batches(sizes[:1], 2, InputSpec(), pad)
    assert last == [wanted[3]]


def test_one_shape_keeps_its_order_and_other_sizes_scale() -> None:
    order, frames = rectangular_batches(
        np.array([[60, 80]] * 5, float), 3, InputSpec(size=(96, 96))
    )
    # 2.25 + 0.5 -> 3, 3 + 0.5 -> 4 units
    assert order.tolist() == [0, 1, 2, 3, 4] and frames == [(96, 128)] * 2
    assert rectangular_batches(np.zeros((0, 2)), 3, InputSpec())[1] == []


def test_the_loader_takes_an_order_of_its_own(shapes: Dataset) -> None:
    order = np.random.default_rng(0).permutation(len(shapes))
    spec = InputSpec(size=(96, 96), rounding="down_height", border=0)
    sizes = [(96, 128), (128, 96), (96, 96)]
    seen = []
    for rank in range(2):
        with Loader(
            shapes, batch_size=4, input_spec=spec, order=order, rank=rank, world_size=2, workers=0
        ) as loader:
            for step, batch in enumerate(loader.epoch(0, lambda step: sizes[step])):
                assert batch.images.shape == (4, 3, *sizes[step])
                assert {p.scale_x for p in batch.placements} <= {1.0}  # 72 x 96, whatever the frame
                seen.append((step, rank, batch.indices[: batch.valid].tolist()))
    assert sum((part for _, _, part in sorted(seen)), []) == order.tolist()


def test_a_wrong_order_is_refused(shapes: Dataset) -> None:
    for order, shuffle in (
        (np.arange(18), False),
        (np.zeros(19, int), False),
        (np.arange(19), True),
    ):
        with pytest.raises(ValueError, match="each of the 19 images once and no shuffle"):
            Loader(shapes, batch_size=4, input_spec=InputSpec(), order=order, shuffle=shuffle)

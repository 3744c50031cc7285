"""Rectangular batches: which images share one, its size, and what the loader makes of it."""

import numpy as np
import pytest

from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.loader import Loader
from mindyolo_ext.data.rectangles import RectangularEpochs, fewest, rectangular_batches
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


def mixed_sizes() -> np.ndarray:
    """Heights and widths (43, 2) from 1:3 to 3:1."""
    rng = np.random.default_rng(0)
    return np.exp(rng.uniform(-1, 1, (43, 2)) * np.log(3) / 2) * 300


@pytest.mark.parametrize("most", [0, 1, 3, 99])
def test_epochs_of_few_sizes(most: int) -> None:
    sizes, spec = mixed_sizes(), InputSpec(size=(320, 320))
    epochs = RectangularEpochs(sizes, 4, spec, most_sizes=most, seed=1)
    left_out, used = set(range(43)), set()
    for epoch in range(6):
        order, inputs = epochs.order(epoch), epochs.inputs(epoch)
        assert len(order) == 40 and len(set(order)) == 40 and len(inputs) == 10
        np.testing.assert_array_equal(order, epochs.order(epoch))
        left_out &= set(range(43)) - set(order.tolist())
        used |= set(inputs)
        for images, (height, width) in zip(order.reshape(10, 4), inputs):
            assert height % 32 == 0 and width % 32 == 0 and max(height, width) == 320
            fitted = sizes[images] * (320 / sizes[images].max(1, keepdims=True))
            assert (fitted <= [height + 1e-6, width + 1e-6]).all()
    assert not left_out  # no image is left out in every epoch
    assert len(used) <= (most or 99)
    if most == 1:
        assert used == {(320, 320)}
    else:
        pixels = np.mean([height * width for height, width in epochs.inputs(0)])
        assert pixels <= (0.9 if most == 3 else 0.82) * 320 * 320
    assert epochs.order(0).tolist() != epochs.order(1).tolist()


def test_sizes_of_sorted_batches_are_the_originals() -> None:
    """DynamicDet's ``--rect``: ceil(shape * size / stride) strides of the most nearly square image
    of each batch; only the order of the batches differs here.
    """
    sizes = np.array(
        [[480, 640], [427, 640], [640, 427], [500, 500], [640, 480], [360, 640]], float
    )
    epochs = RectangularEpochs(sizes, 2, InputSpec(), most_sizes=0, seed=0)
    found = dict(zip(map(tuple, np.sort(epochs.order(3).reshape(3, 2))), epochs.inputs(3)))
    # height / width 0.5625 0.667 | 0.75 1 | 1.333 1.499
    assert found == {(1, 5): (448, 640), (0, 3): (640, 640), (2, 4): (640, 480)}


def test_sizes_are_joined_where_it_costs_least() -> None:
    square = (640, 640)
    frames = [(320, 640)] * 9 + [(352, 640)] + [(640, 512)] * 3
    assert fewest(frames, 9, square) == [(320, 640), (352, 640), square, (640, 512)]
    assert fewest(frames, 3, square) == [(352, 640), square, (640, 512)]  # 9 x 32 rows
    assert fewest(frames, 2, square) == [(352, 640), square]
    assert fewest(frames, 1, square) == [square]

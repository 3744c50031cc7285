"""DynamicDet's input equals that of the original's evaluation and of its inference tool."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import Golden

from mindyolo_ext.data.rectangles import rectangular_batches
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.dynamicdet.variants import official_input

SIZES = {"p5": (640, 32), "w6": (1280, 64), "down": (96, 32)}  # side of the input, stride


@pytest.fixture(scope="module")
def stored(golden: Golden) -> dict[str, np.ndarray]:
    return golden.arrays("dynamicdet/preprocess.npz")


def framed(stored: dict[str, np.ndarray], setting: str) -> InputSpec:
    """The spec for the image as a batch of its own, in the narrowest frame."""
    side, stride = SIZES[setting]
    spec = official_input((side, side), stride)
    order, frames = rectangular_batches(np.array([stored["image"].shape[:2]]), 1, spec, pad=0.5)
    assert order.tolist() == [0]
    return spec.in_frame(frames[0])


def same_grey_levels(tensor: np.ndarray, wanted: np.ndarray) -> None:
    got = np.rint(tensor * 255)
    np.testing.assert_array_equal(tensor, got.astype(np.float32) / np.float32(255))
    assert got.shape == wanted.shape
    difference = np.abs(got - wanted)  # another OpenCV may round differently
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


@pytest.mark.parametrize("setting", SIZES)
def test_pictures_equal_the_original(stored: dict[str, np.ndarray], setting: str) -> None:
    spec = framed(stored, setting)
    assert (1, 3, *spec.size) == tuple(stored[f"{setting}_input_shape"])
    step = 1 if f"{setting}_input" in stored else 4
    wanted = stored[f"{setting}_input" if step == 1 else f"{setting}_input_sub4"]
    same_grey_levels(spec.prepare(stored["image"])[0][:, ::step, ::step], wanted[0])


@pytest.mark.parametrize("setting", SIZES)
def test_boxes_find_the_way_of_the_original(stored: dict[str, np.ndarray], setting: str) -> None:
    spec = framed(stored, setting)
    height, width, scale_y, scale_x, pad_x, pad_y = stored[f"{setting}_shapes"]
    assert (height, width) == stored["image"].shape[:2] and scale_x != scale_y
    placement = spec.place(int(height), int(width))
    assert (placement.pad_x, placement.pad_y) == (pad_x, pad_y)
    assert (placement.scale_x, placement.scale_y) == pytest.approx((scale_y, scale_y), rel=1e-12)
    corners = np.array([[pad_x, pad_y, spec.size[1] - pad_x, spec.size[0] - pad_y]], np.float32)
    wanted = np.minimum(
        (corners - np.float32([pad_x, pad_y] * 2)) / np.float32(scale_y), [width, height] * 2
    )
    np.testing.assert_allclose(placement.to_photo(corners), wanted, rtol=1e-6)

    # labels follow each side's factor
    exact = replace(spec, rounding="down").place(int(height), int(width))
    rows, net = stored["labels"], np.array([*spec.size[::-1]] * 2)
    got = exact.to_network(photo_boxes(rows, width, height)) / net
    centred = np.concatenate([(got[:, :2] + got[:, 2:]) / 2, got[:, 2:] - got[:, :2]], 1)
    wanted = stored[f"{setting}_targets"]
    np.testing.assert_array_equal(wanted[:, 1], rows[:, 0])
    np.testing.assert_allclose(centred, wanted[:, 2:], atol=1e-6)


def photo_boxes(rows: np.ndarray, width: float, height: float) -> np.ndarray:
    """Rows (N, 5) class, cx, cy, w, h in 0..1 -> (N, 4) xyxy in pixels of the photo."""
    boxes = np.concatenate([rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 1:3] + rows[:, 3:] / 2], 1)
    return boxes * np.array([width, height] * 2)


@pytest.mark.parametrize(("name", "size"), [("detect96", (96, 96)), ("detect640", (448, 640))])
def test_the_inference_tool(
    stored: dict[str, np.ndarray], name: str, size: tuple[int, int]
) -> None:
    """It rounds to the nearest pixel, never averages, and halves the padding before rounding."""
    spec = InputSpec(size=size, color="rgb")
    step = 1 if f"{name}_input" in stored else 4
    assert step == 1 or tuple(stored[f"{name}_shape"]) == (3, *size)
    wanted = stored[f"{name}_input" if step == 1 else f"{name}_input_sub4"]
    same_grey_levels(spec.prepare(stored["image"])[0][:, ::step, ::step], wanted)


def test_a_square_input_keeps_the_scale_of_the_narrow_one() -> None:
    spec = official_input((640, 640), 32)
    photo = np.random.default_rng(0).integers(0, 256, (121, 173, 3)).astype(np.uint8)
    square, narrow = spec.prepare(photo), spec.in_frame((480, 672)).prepare(photo)
    assert (square[1].scale_x, square[1].scale_y) == (narrow[1].scale_x, narrow[1].scale_y)
    np.testing.assert_array_equal(square[0][:, 96:543, :], narrow[0][:, 16:463, 16:656])
    assert InputSpec.from_json(spec.to_json()) == spec


def test_a_size_that_does_not_fit_the_stride() -> None:
    with pytest.raises(ValueError, match=r"positive multiples of 64, got \(672, 672\)"):
        official_input((672, 672), 64)

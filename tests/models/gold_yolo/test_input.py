"""Gold-YOLO's input equals that of the original's evaluation, published and default, and of its
inference tool.
"""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from helpers import Golden

from mindyolo_ext.input_spec import InputSpec

PUBLISHED = InputSpec(color="rgb", rounding="down_whole", shrink="area", border=4)
EVERYDAY = replace(PUBLISHED, rounding="down_height", border=0)
SPECS = {
    "default": EVERYDAY.in_frame((480, 672)),
    "repro636": PUBLISHED,
    "repro634": replace(PUBLISHED, border=6),
    "repro638": replace(PUBLISHED, border=2),
    "small96": replace(EVERYDAY, size=(96, 96)).in_frame((96, 128)),
    "small96sq": replace(PUBLISHED, size=(96, 96), border=1),
    "infer640": InputSpec(size=(448, 640), color="rgb"),
}


@pytest.fixture(scope="module")
def stored(golden: Golden) -> dict[str, np.ndarray]:
    return golden.arrays("gold_yolo/preprocess.npz")


def network_boxes(rows: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Rows (N, 5) class, cx, cy, w, h in 0..1 -> xyxy in pixels of ``size`` (height, width)."""
    boxes = np.concatenate([rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 1:3] + rows[:, 3:] / 2], 1)
    return boxes * (size[1], size[0], size[1], size[0])


@pytest.mark.parametrize("setting", SPECS)
def test_pictures_equal_the_original(stored: dict[str, np.ndarray], setting: str) -> None:
    spec, wanted = SPECS[setting], stored[f"{setting}_input"]
    step = spec.size[0] // wanted.shape[1]
    assert step in (1, 4) and wanted.shape == (3, spec.size[0] // step, spec.size[1] // step)
    tensor, _ = spec.prepare(stored["image"])
    got = np.rint(tensor[:, ::step, ::step] * 255).astype(int)
    assert np.abs(got - wanted).max() <= 1 and (got != wanted).mean() < 0.01  # OpenCV's rounding


@pytest.mark.parametrize("setting", [name for name in SPECS if name != "infer640"])
def test_boxes_find_the_way_of_the_original(stored: dict[str, np.ndarray], setting: str) -> None:
    spec, (height, width) = SPECS[setting], stored["image"].shape[:2]
    placement = spec.place(height, width)
    assert [placement.pad_x, placement.pad_y] == stored[f"{setting}_pad_wh"].tolist()
    scale_y, scale_x = stored[f"{setting}_ratio_hw"]
    everyday = spec.rounding == "down_height"
    assert (placement.scale_y, placement.scale_x) == pytest.approx(
        (scale_y, scale_y if everyday else scale_x), 1e-12
    )
    wanted = stored[f"{setting}_boxes_orig{'' if everyday else '_exact'}"]
    np.testing.assert_allclose(placement.to_photo(stored["boxes_net"]), wanted, atol=1e-4)
    exact = replace(spec, rounding="down").place(height, width) if everyday else placement
    np.testing.assert_allclose(
        exact.to_photo(stored["boxes_net"]), stored[f"{setting}_boxes_orig_exact"], atol=1e-4
    )
    labels = np.clip(
        exact.to_network(network_boxes(stored["labels_in"], (height, width))),
        0,
        np.array([*spec.size[::-1]] * 2) - 1e-3,
    )
    np.testing.assert_allclose(
        labels, network_boxes(stored[f"{setting}_labels"][:, 1:], spec.size), atol=1e-3
    )


def test_the_inference_tool_differs_by_less_than_half_a_pixel_of_the_network(
    stored: dict[str, np.ndarray],
) -> None:
    """It halves the padding before rounding, and finally rounds its boxes to whole pixels."""
    got = SPECS["infer640"].place(*stored["image"].shape[:2]).to_photo(stored["boxes_net"])
    np.testing.assert_allclose(got, stored["infer640_boxes_orig"], atol=0.5 * 173 / 640)


def test_a_photo_that_does_not_fit_is_shrunk_again() -> None:
    photo = cv2.resize(
        np.random.default_rng(0).integers(0, 256, (9, 11, 3)).astype(np.uint8), (137, 113)
    )
    spec = InputSpec(size=(64, 96), rounding="down_whole", shrink="area", border=1)
    canvas, placement = spec.resize_image(photo)
    once = cv2.resize(photo, (95, 78), interpolation=cv2.INTER_AREA)  # 113 * 95 / 137 = 78.4
    twice = cv2.resize(once, (78, 64), interpolation=cv2.INTER_LINEAR)  # 95 * 64 / 78 = 77.9
    np.testing.assert_array_equal(canvas[:, 9:87], twice)
    assert (canvas[:, :9] == 114).all() and (canvas[:, 87:] == 114).all()
    assert (placement.pad_x, placement.pad_y) == (9, 0)
    assert (placement.scale_x, placement.scale_y) == pytest.approx(
        (95 / 137 * 64 / 78, 78 / 113 * 64 / 78)
    )


def test_a_frame_keeps_the_scale_of_photos() -> None:
    for border in (0, 4):
        spec = replace(EVERYDAY, border=border)
        for size in ((672, 672), (352, 672), (672, 480)):
            framed = spec.in_frame(size)
            height, width = (300, 640) if size[1] == 672 else (640, 300)
            ours, theirs = framed.place(height, width), spec.place(height, width)
            assert framed.size == size and (ours.scale_x, ours.scale_y) == (
                theirs.scale_x,
                theirs.scale_y,
            )
    plain = InputSpec(size=(96, 96)).in_frame((64, 128))
    assert plain == InputSpec(size=(64, 128))


def test_only_a_border_lets_photos_stay_small_or_grow_to_it() -> None:
    small = np.full((32, 48, 3), 7, np.uint8)
    spec = InputSpec(size=(96, 96), rounding="down_whole", scale_up=False)
    assert (spec.resize_image(small)[0] == 7).all(-1).sum() == 32 * 48
    assert (replace(spec, border=0).resize_image(small)[0] == 7).all(-1).sum() == 64 * 96


def test_any_shape_of_photo_fits() -> None:
    for spec in (replace(PUBLISHED, size=(64, 96)), replace(EVERYDAY, size=(96, 64))):
        for height, width in ((1, 500), (500, 1), (64, 96), (63, 95), (1, 1), (1080, 1921)):
            assert spec.prepare(np.zeros((height, width, 3), np.uint8))[0].shape == (3, *spec.size)


def test_borders_that_make_no_sense_are_refused() -> None:
    assert InputSpec.from_json(PUBLISHED.to_json()) == PUBLISHED
    for changes in (
        {"border": 640},
        {"border": 4, "resize": "stretch"},
        {"border": 4, "rounding": "nearest"},
    ):
        with pytest.raises(ValueError, match="border needs a letterbox"):
            replace(PUBLISHED, **changes)

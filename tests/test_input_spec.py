"""From a photo to the network's input: YOLOX's three conventions, and the JSON that checkpoints
store.
"""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from helpers import Golden

from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.yolox.variants import YOLOX_INPUTS


def photo(height: int, width: int) -> np.ndarray:
    return (
        np.random.default_rng(height * width).integers(0, 256, (height, width, 3)).astype(np.uint8)
    )


@pytest.mark.parametrize("size", [416, 640])
def test_yolox_inputs_equal_the_original(golden: Golden, size: int) -> None:
    stored = golden.arrays("yolox/preprocess.npz")
    tensor, placement = YOLOX_INPUTS["official"]((size, size)).prepare(stored["image"])
    difference = np.abs(tensor - stored[f"input_{size}"])
    # OpenCV's rounding
    assert tensor.dtype == np.float32 and difference.max() <= 1 and difference.mean() < 1e-3
    ratio = float(stored[f"ratio_{size}"])
    assert (placement.scale_x, placement.scale_y, placement.pad_x, placement.pad_y) == (
        ratio,
        ratio,
        0,
        0,
    )
    assert [placement.height, placement.width] == stored[f"img_info_{size}"].tolist()
    rows, columns = stored[f"resized_hw_{size}"]
    assert (tensor[:, rows:] == 114).all() and (tensor[:, :, columns:] == 114).all()
    assert (tensor[:, :rows, :columns] != 114).mean() > 0.9
    np.testing.assert_allclose(
        placement.to_photo(np.array([[0, 0, 173 * ratio, 121 * ratio]]), clip=False),
        [[0, 0, 173, 121]],
        rtol=1e-6,
    )
    legacy, _ = YOLOX_INPUTS["legacy"]((size, size)).prepare(stored["image"])
    np.testing.assert_allclose(
        legacy[:, ::8, ::8], stored[f"legacy_input_{size}_sub8"], atol=1 / 255 / 0.224
    )
    # the same image, so that only arithmetic can differ
    exact = YOLOX_INPUTS["legacy"]((size, size)).to_tensor(
        stored[f"input_{size}"].transpose(1, 2, 0)
    )
    np.testing.assert_allclose(exact[:, ::8, ::8], stored[f"legacy_input_{size}_sub8"], atol=1e-6)


def test_a_lost_pixel_is_fitted_again_for_yolox_only() -> None:
    image = photo(94, 70)  # int(94 * (96 / 94)) is 95
    spec = YOLOX_INPUTS["official"]((96, 96))
    canvas, placement = spec.resize_image(image)
    once = cv2.resize(image, (71, 95), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(
        canvas[:96, :71], cv2.resize(once, (71, 96), interpolation=cv2.INTER_LINEAR)
    )
    assert (canvas[:, 71:] == 114).all() and placement.scale_y == 96 / 94
    plain = replace(spec, rounding="down").resize_image(image)[0]
    np.testing.assert_array_equal(plain[:95, :71], once)
    assert (plain[95] == 114).all()


@pytest.mark.parametrize(
    ("height", "width"),
    [(300, 401), (401, 300), (50, 77), (96, 96), (96, 40), (131, 131), (94, 30)],
)
def test_mindyolo_input(height: int, width: int) -> None:
    """Longest side to 96, fractions truncated, averaged when shrinking, padded on both sides."""
    image = photo(height, width)
    factor = 96 / max(height, width)
    if factor != 1:
        image = cv2.resize(
            image,
            (int(width * factor), int(height * factor)),
            interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR,
        )
    rows, columns = 96 - image.shape[0], 96 - image.shape[1]
    wanted = cv2.copyMakeBorder(
        image,
        rows // 2,
        rows - rows // 2,
        columns // 2,
        columns - columns // 2,
        cv2.BORDER_CONSTANT,
        value=(114, 114, 114),
    )
    tensor, placement = YOLOX_INPUTS["mindyolo"]((96, 96)).prepare(photo(height, width))
    np.testing.assert_array_equal(
        tensor, wanted[:, :, ::-1].transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    )
    whole = placement.to_network(np.array([[0, 0, width, height]], np.float32))
    left, top = columns / 2, rows / 2
    np.testing.assert_allclose(
        whole, [[left, top, left + image.shape[1], top + image.shape[0]]], rtol=1e-6
    )
    np.testing.assert_allclose(placement.to_photo(whole), [[0, 0, width, height]], atol=1e-4)


@pytest.mark.parametrize("form", sorted(YOLOX_INPUTS))
def test_any_shape_of_photo_fits(form: str) -> None:
    spec = YOLOX_INPUTS[form]((64, 96))
    for height, width in ((1, 500), (500, 1), (64, 96), (63, 95), (1, 1), (1080, 1921)):
        assert spec.prepare(photo(height, width))[0].shape == (3, 64, 96)


def test_defaults_round_to_the_nearest_and_pad_both_sides() -> None:
    canvas, placement = InputSpec(size=(96, 96)).resize_image(photo(50, 77))
    # 62.3 -> 62 rows
    assert (placement.scale_x, placement.pad_x, placement.pad_y) == (96 / 77, 0, 17)
    np.testing.assert_array_equal(
        canvas[17:79], cv2.resize(photo(50, 77), (96, 62), interpolation=cv2.INTER_LINEAR)
    )
    assert (canvas[:17] == 114).all() and (canvas[79:] == 114).all()


def test_json_with_and_without_the_newer_fields() -> None:
    spec = YOLOX_INPUTS["mindyolo"]((96, 64))
    assert InputSpec.from_json(spec.to_json()) == spec
    older = json.loads(InputSpec().to_json())
    del older["rounding"], older["shrink"], older["border"]
    assert InputSpec.from_json(json.dumps(older)) == InputSpec()
    with pytest.raises(ValueError, match="rounding must be one of"):
        InputSpec(rounding="up")
    with pytest.raises(ValueError, match="shrink must be one of"):
        InputSpec(shrink="cubic")

"""The simple YOLO's input equals that of the original's validation, and differs from its prediction
in known ways.
"""

import builtins
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from helpers import Golden
from PIL import Image

from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.simple_yolo.variants import official_input


def photo(height: int, width: int) -> np.ndarray:
    return (
        np.random.default_rng(height * width).integers(0, 256, (height, width, 3)).astype(np.uint8)
    )


def test_validation_equals_the_original(golden: Golden) -> None:
    stored, spec = golden.arrays("simple_yolo/preprocess.npz"), official_input()
    canvas, placement = spec.resize_image(stored["image"])
    np.testing.assert_array_equal(canvas[:, :, ::-1], stored["canvas_uint8_rgb"])
    ratio = float(stored["resize_ratio"])
    assert (placement.scale_x, placement.scale_y) == (ratio, ratio)
    assert [placement.pad_x, placement.pad_y] == stored["pad_xy"].tolist()
    assert list(spec.fit_image(stored["image"]).shape[:2]) == stored["resized_hw"].tolist()
    tensor, _ = spec.prepare(stored["image"])
    np.testing.assert_allclose(tensor[:, ::4, ::4], stored["input_sub"], atol=1e-5)
    np.testing.assert_allclose(
        tensor.sum(2, dtype=np.float64), stored["input_row_sums"], atol=512 * 1e-5
    )


def test_padding_is_black_before_it_is_normalised(golden: Golden) -> None:
    stored = golden.arrays("simple_yolo/preprocess.npz")
    tensor, placement = official_input().prepare(stored["image"])
    top = tensor[:, : int(placement.pad_y)]
    black = -np.array([[[0.485 / 0.229]], [[0.456 / 0.224]], [[0.406 / 0.225]]])
    np.testing.assert_allclose(top, np.broadcast_to(black, (3, 77, 512)), atol=1e-6)


def test_prediction_differs_by_the_filter_and_the_padding_only(golden: Golden) -> None:
    """The original predicts on the image resized linearly, without padding."""
    stored = golden.arrays("simple_yolo/preprocess_predict.npz")
    linear = replace(official_input(), resample="linear")
    tensor = linear.to_tensor(linear.fit_image(stored["image"]))
    assert list(tensor.shape) == stored["shape"].tolist()
    np.testing.assert_allclose(tensor[:, ::3, ::3], stored["input_sub"], atol=1e-5)
    np.testing.assert_allclose(tensor.sum((1, 2), dtype=np.float64), stored["input_sum"], atol=0.1)
    padded, placement = linear.prepare(stored["image"])
    top = int(placement.pad_y)
    np.testing.assert_array_equal(padded[:, top : top + tensor.shape[1]], tensor)


@pytest.mark.parametrize(
    ("height", "width"), [(300, 401), (401, 300), (50, 77), (96, 96), (131, 131), (7, 500)]
)
def test_bicubic_is_pillows_default_in_every_frame(height: int, width: int) -> None:
    image, spec = photo(height, width), InputSpec(size=(64, 96), resample="bicubic")
    ratio = min(64 / height, 96 / width)
    wanted = np.asarray(
        Image.fromarray(image).resize((round(width * ratio), round(height * ratio)))
    )
    np.testing.assert_array_equal(spec.fit_image(image), wanted)
    canvas, placement = spec.resize_image(image)
    top, left = (64 - wanted.shape[0]) // 2, (96 - wanted.shape[1]) // 2
    assert (placement.pad_x, placement.pad_y) == (left, top)
    np.testing.assert_array_equal(
        canvas[top : top + wanted.shape[0], left : left + wanted.shape[1]], wanted
    )
    stretched, _ = replace(spec, resize="stretch").resize_image(image)
    np.testing.assert_array_equal(stretched, np.asarray(Image.fromarray(image).resize((96, 64))))


def test_bicubic_averages_where_a_photo_shrinks() -> None:
    """A pattern of single black and white columns becomes gray; linear sampling without averaging
    keeps stripes.
    """
    stripes = np.zeros((288, 288, 3), np.uint8)
    stripes[:, ::3] = 255
    bicubic, linear = (
        InputSpec(size=(96, 96), resample=name).fit_image(stripes) for name in ("bicubic", "linear")
    )
    assert np.ptp(bicubic[:, 4:-4].astype(int)) < 40 and np.abs(bicubic.mean() - 85) < 2
    assert linear.max() in (0, 255) and np.abs(linear.mean() - 85) > 60
    small = np.arange(12 * 9 * 3, dtype=np.uint8).reshape(12, 9, 3)
    assert (
        cv2.resize(small, (72, 96)) != InputSpec(size=(96, 96), resample="bicubic").fit_image(small)
    ).any()


def test_boxes_go_there_and_back() -> None:
    for height, width in ((375, 500), (500, 333), (40, 30), (512, 512)):
        placement = official_input().place(height, width)
        whole = np.array([[0, 0, width, height]], np.float32)
        inside = placement.to_network(whole)
        assert inside.max() <= 512.5 and np.isclose((inside[0, 2:] - inside[0, :2]).max(), 512)
        np.testing.assert_allclose(placement.to_photo(inside), whole, atol=1e-3)


def test_json_and_values_that_make_no_sense() -> None:
    spec = official_input((96, 128))
    assert InputSpec.from_json(spec.to_json()) == spec
    older = json.loads(InputSpec().to_json())
    assert older.pop("resample") == "linear"
    assert InputSpec.from_json(json.dumps(older)) == InputSpec()
    with pytest.raises(ValueError, match="resample must be one of"):
        InputSpec(resample="cubic")
    with pytest.raises(ValueError, match="wanted shrink linear with it, got 'area'"):
        InputSpec(resample="bicubic", shrink="area")


def test_without_pillow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_pillow(name: str, *rest: object, **named: object) -> object:
        if name == "PIL":
            raise ModuleNotFoundError("No module named 'PIL'")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without_pillow)
    with pytest.raises(ImportError, match="pip install pillow"):
        official_input().prepare(photo(20, 30))
    # linear needs none
    assert InputSpec(size=(96, 96)).prepare(photo(20, 30))[0].shape == (3, 96, 96)

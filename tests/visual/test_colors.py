"""Colors of boxes: distinct for color-blind readers, with legible labels."""

from itertools import combinations

import numpy as np
import pytest

from mindyolo_ext.visual.colors import PALETTE, class_color, ink_on

# Machado, Oliveira and Fernandes (2009), severity 1, on linear red, green, blue
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = np.array(  # sRGB with white D65
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def linear(color: tuple[int, int, int]) -> np.ndarray:
    """Linear red, green, blue of a color in the order blue, green, red."""
    values = np.array(color[::-1]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    """CIELAB of linear red, green, blue."""
    x, y, z = np.cbrt(TO_XYZ @ np.clip(light, 0, 1) / TO_XYZ.sum(axis=1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    low, high = sorted(float(TO_XYZ[1] @ linear(color)) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("vision", VISION)
def test_the_first_colors_are_distinct_for_every_reader(vision: str):
    seen = [lab(np.array(VISION[vision]) @ linear(class_color(k))) for k in range(len(PALETTE))]
    nearest = min(np.linalg.norm(one - other) for one, other in combinations(seen, 2))
    assert nearest > 14.5  # 15.0 for protanopia; below 2.3 readers see no difference


def test_labels_have_the_contrast_of_wcag():
    for label in range(80):
        color = class_color(label)
        assert contrast(color, ink_on(color)) >= 4.5


def test_colors_are_stable_and_differ():
    colors = [class_color(label) for label in range(80)]
    assert len(set(colors)) == 80
    assert class_color(80) == colors[0] == (0xE9, 0xB4, 0x56)
    for near, far in zip(colors, colors[1:]):
        assert np.abs(np.subtract(near, far)).max() > 30

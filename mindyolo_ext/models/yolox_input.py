"""The three input conventions that YOLOX weights were trained with; weights of one fail on the
input of another.
"""

from collections.abc import Callable

from mindyolo_ext.input_spec import InputSpec


def official_input(size: tuple[int, int]) -> InputSpec:
    """Raw 0..255 BGR, the photo in the top left corner, grey right and below it.

    Source: YOLOX ``data_augment.py`` (``preproc``), since version 0.1.1.
    """
    return InputSpec(size=size, color="bgr", scale=1.0, pad_anchor="topleft", rounding="down_twice")


def legacy_input(size: tuple[int, int]) -> InputSpec:
    """Placed as ``official_input``, but RGB with ImageNet's mean and deviation, the padding
    included.

    Source: YOLOX ``data_augment.py`` (``ValTransform`` with ``legacy``), for weights of version
    0.1.0.
    """
    return InputSpec(
        size=size,
        color="rgb",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        pad_anchor="topleft",
        rounding="down_twice",
    )


def mindyolo_input(size: tuple[int, int]) -> InputSpec:
    """RGB in 0..1, the photo in the middle, averaged where it gets smaller.

    Source: MindYOLO ``data/dataset.py`` (``get_sample``, ``letterbox``). Despite its ``scaleup:
        False`` a small photo grows: the reader scales the longest side to the input size before the
        letterbox step sees it. Unlike the original, whose evaluation divides x and y by the factor
        of the height, boxes go back by each side's own factor, as they went into its training.
    """
    return InputSpec(size=size, color="rgb", pad_anchor="center", rounding="down", shrink="area")


YOLOX_INPUTS: dict[str, Callable[[tuple[int, int]], InputSpec]] = {
    "official": official_input,
    "legacy": legacy_input,
    "mindyolo": mindyolo_input,
}

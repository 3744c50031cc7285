"""The input conventions of Gold-YOLO: RGB, 0..1, a letterbox in the middle. NumPy only."""

from mindyolo_ext.input_spec import InputSpec


def published_input(size: tuple[int, int], border: int | None = None) -> InputSpec:
    """The input that the published numbers were measured with (``--reproduce_640_eval`` of the
    original).

    Args:
        size: (height, width) of the network input.
        border: by how many pixels the longer side of a photo stays below it; at 640 the published
            weights want 4, and 6 for s. None leaves no border.
    """
    return InputSpec(size=size, color="rgb", rounding="down_whole", shrink="area", border=border)

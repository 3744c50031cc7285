"""The input convention of DynamicDet: RGB, 0..1, a letterbox in the middle. NumPy only."""

from mindyolo_ext.input_spec import InputSpec


def official_input(size: tuple[int, int], stride: int) -> InputSpec:
    """The input of the original's evaluation.

    A photo's longer side gets the length of the input's longer side, enlarged too, and fractions of
    a pixel are cut off; shrinking averages pixels. Boxes go back by the height's factor on both
    sides and the middle of the padding.

    Args:
        size: (height, width) of the network input.
        stride: of the coarsest level; ``size`` is a multiple of it.

    Raises: ValueError for a size that is no multiple of ``stride``.
    Source: DynamicDet ``utils/datasets.py`` (``load_image``, ``letterbox``) and
        ``utils/general.py`` (``scale_coords``). The original evaluates batches as narrow as their
        pictures, half a stride wider than needed (``eval.rectangular``); a square input is this
        spec as it stands.
    """
    return InputSpec(
        size=size, color="rgb", rounding="down_height", shrink="area", border=0, stride=stride
    )

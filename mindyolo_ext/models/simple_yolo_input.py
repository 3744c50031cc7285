"""The input convention of the simple YOLO: RGB with ImageNet's statistics, a black letterbox.
NumPy only.
"""

from mindyolo_ext.input_spec import InputSpec


def official_input(size: tuple[int, int] = (512, 512)) -> InputSpec:
    """The input of the original's training and validation.

    A photo's longer side gets the length of the input's side, enlarged too, the other side is
    rounded to the nearest pixel; Pillow's bicubic filter resizes. The photo lies in the middle on
    black, which is normalised with it.

    Args:
        size: (height, width) of the network input.

    Raises: ValueError for a size that is no multiple of 32.
    Source: simple-yolo-pytorch ``datasets/base_dataset.py`` (``load_data``, ``load_one_img_lbl``).
        Unlike the original: a photo always fits into an input that is not square, where the
        original looks at the longer side alone; and prediction takes this input too, where the
        original's (``datasets/test_dataset.py``) resizes linearly and pads nothing.
    """
    return InputSpec(
        size=size,
        color="rgb",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        pad_value=0,
        resample="bicubic",
    )

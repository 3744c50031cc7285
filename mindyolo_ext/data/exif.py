"""Whether a photo is stored turned, with a note in its EXIF block that says how to show it."""

import warnings
from pathlib import Path

from PIL import Image

_ORIENTATION = 0x0112  # EXIF tag
_TURNED = (5, 6, 7, 8)  # by a quarter: height and width are exchanged


def orientation(path: str | Path) -> int:
    """The EXIF orientation, 1 (as stored) .. 8; 1 where the file says none or cannot be read."""
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")  # of odd EXIF blocks and many pixels; none is decoded
            found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # whatever Pillow makes of a damaged file: reading the image tells
        return 1
    return found if found in range(1, 9) else 1


def is_turned(path: str | Path) -> bool:
    """Whether the photo is stored lying on its side and shown upright."""
    return orientation(path) in _TURNED

"""Write a line of text on an image, with OpenCV's font for ASCII and an installed font for other
scripts.
"""

import logging
from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np

logger = logging.getLogger(__name__)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_HEIGHT = 22  # height of a capital letter of that font at scale 1, pixels
_BOXES_ONLY = "Last Resort"  # a font that shows every letter as a box
_PREFERRED = ("DejaVu Sans", "Noto Sans", "Noto Sans CJK SC", "WenQuanYi Micro Hei", "PingFang SC")


class Text:
    """A line of text of the given height, shrunk to be no wider than ``room``.

    Args:
        text: the text.
        height: height of a capital letter, pixels.
        room: maximum width, pixels.

    Attributes: ``width``, ``height`` of the drawn text, pixels.
    """

    def __init__(self, text: str, height: float, room: int):
        self.text = text
        self.font = None if _is_ascii(text) else font_file(text)
        self._set(height)
        if self.width > room:  # a very small image
            self._set(height * room / self.width)

    def _set(self, height: float) -> None:
        if self.font:
            from PIL import ImageFont  # imported here because most names are ASCII

            self._letters = ImageFont.truetype(self.font, max(round(height * 1.35), 1))
            left, top, right, bottom = self._letters.getbbox(self.text)
            self._corner = left, top
            self.width, self.height = round(right - left), round(bottom - top)
            return
        self.scale = max(height / _FONT_HEIGHT, 0.05)
        self.stroke = max(1, round(self.scale * 1.6))
        (self.width, self.height), _ = cv2.getTextSize(self.text, _FONT, self.scale, self.stroke)

    def draw(self, canvas: np.ndarray, left: int, top: int, ink: tuple[int, int, int]) -> None:
        """Write on uint8 BGR ``canvas`` with the upper left corner at (left, top), in color ``ink``
        (BGR).
        """
        if not self.font:
            spot = left, top + self.height
            cv2.putText(canvas, self.text, spot, _FONT, self.scale, ink, self.stroke, cv2.LINE_AA)
            return
        from PIL import Image, ImageDraw

        part = canvas[top : top + self.height, left : left + self.width]
        cover = Image.new("L", part.shape[1::-1])
        place = -self._corner[0], -self._corner[1]
        ImageDraw.Draw(cover).text(place, self.text, fill=255, font=self._letters)
        share = np.asarray(cover, np.float32)[:, :, None] / 255.0
        part[:] = np.rint(part * (1 - share) + np.array(ink, np.float32) * share)


def printable(name: str, label: int) -> str:
    """Return the name if an installed font can write it, else ``class <label>``."""
    if name.isprintable() and (_is_ascii(name) or font_file(name)):
        return name
    return f"class {label}"


@lru_cache(maxsize=1024)
def font_file(text: str) -> str:
    """Find an installed font that has every letter of ``text``. Return an empty string, and warn
    once, if there is none.
    """
    from matplotlib import font_manager  # takes half a second; only for names that are not ASCII

    fonts = font_manager.fontManager.ttflist
    plain = [
        font
        for font in fonts
        if font.style == "normal"
        and font.weight in (400, "normal", "regular")
        and not font.name.startswith(_BOXES_ONLY)
    ]
    plain.sort(key=lambda f: _PREFERRED.index(f.name) if f.name in _PREFERRED else len(_PREFERRED))
    wanted = {ord(letter) for letter in text if not letter.isspace()}
    for font in plain:
        if wanted <= _letters_of(font.fname):
            return font.fname
    _say_once()
    return ""


@cache
def _letters_of(file: str) -> frozenset[int]:
    """Return the code points of a font file; empty if it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(file).get_charmap()) if Path(file).is_file() else frozenset()
    except (OSError, RuntimeError):
        return frozenset()


@lru_cache(maxsize=1)
def _say_once() -> None:
    logger.warning(
        "no installed font has all letters of some class names; their boxes show the number of the "
        "class. Install a font such as Noto Sans CJK (Debian: apt install "
        "fonts-noto-cjk)"
    )


def _is_ascii(text: str) -> bool:
    return text.isascii() and text.isprintable()

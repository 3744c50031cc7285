"""Colors of boxes and curves that color-blind readers can tell apart."""

# The first seven are the palette of Okabe and Ito. The others were chosen one after another, each
# as far as possible from all before it, for normal vision and the three kinds of color blindness.
PALETTE = (
    *("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2"),
    *("#8800FF", "#BBEE99", "#884422", "#00FFDD", "#BB55FF", "#FF0055", "#774466"),
    *("#5544BB", "#990088", "#88EE66", "#EEBBAA", "#EECCFF", "#AA1144"),
)
# Those of the first colors that are dark enough for lines on white
LINE_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
OUTLINE = (24, 24, 24)  # edge of the lines of boxes, so that they show on any background
_SHADES = (0.0, -0.25, 0.3, 0.5)  # below 0 toward black, above 0 toward white


def class_color(label: int) -> tuple[int, int, int]:
    """Return the color of a class: blue, green, red in 0..255.

    The colors of the first 20 classes are distinct under every kind of color blindness. The next
    60 classes have darker and lighter shades of them; then the colors repeat.
    """
    code = PALETTE[label % len(PALETTE)]
    shade = _SHADES[label // len(PALETTE) % len(_SHADES)]
    end = 255 if shade > 0 else 0
    red, green, blue = (
        round(value + abs(shade) * (end - value)) for value in bytes.fromhex(code[1:])
    )
    return blue, green, red


def ink_on(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return black or white, whichever has more contrast with ``color``, at least 4.5 : 1.

    Colors are blue, green, red in 0..255. The contrast is that of WCAG 2.
    """
    blue, green, red = (_linear(value / 255) for value in color)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 0.05 * 1.05 else (255, 255, 255)


def _linear(value: float) -> float:
    """Convert an sRGB component to linear light, both in 0..1."""
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4

"""Draw a label assignment: which predictions of each level are assigned to which box."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke

from mindyolo_ext.data.image_file import write_image
from mindyolo_ext.priors import Priors
from mindyolo_ext.visual.colors import class_color, ink_on

_DPI = 100
_PANEL = 760  # longer side of a panel, pixels
_TITLE, _GAP, _CAPTION = 30, 12, 84
_NAMED_BOXES = 12  # with more boxes, labels show only the number, not the class
_OUTLINES = 60  # with more matches on a level, only the best match of each box is outlined
_NAME = 16  # letters of a class name in the list
_MARKERS = "o^sDvPX*"  # markers of a level's anchors, in order
_LETTER, _LINE = 0.602, 1.35  # letter width and line height, relative to the font size
_LARGEST, _SMALLEST = 21.0, 9.0  # font size of the list, pixels
_RED, _INK = "#e00000", "#202020"


@dataclass(frozen=True)
class AssignedPicture:
    """A network input with its boxes and the predictions that are assigned to them.

    Args:
        name: name of the image, for the title.
        image: uint8 BGR (H, W, 3), the network input.
        boxes: (N, 4) float32 xyxy in pixels of ``image``.
        labels: (N,) class indices.
        class_names: name per class index.
        priors: priors of the network for this input.
        matches: (N, A) bool, which prediction is assigned to which box.
        predicted: (A, 4) xyxy in pixels of ``image``, the predicted boxes.

    Raises: ValueError without boxes, for mismatched shapes, or for a class without a name.
    """

    name: str
    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    class_names: Sequence[str]
    priors: Priors
    matches: np.ndarray
    predicted: np.ndarray

    def __post_init__(self) -> None:
        count, predictions = len(self.boxes), len(self.priors)
        wanted = {
            "boxes": (count, 4),
            "labels": (count,),
            "matches": (count, predictions),
            "predicted": (predictions, 4),
        }
        got = {
            "boxes": np.shape(self.boxes),
            "labels": np.shape(self.labels),
            "matches": np.shape(self.matches),
            "predicted": np.shape(self.predicted),
        }
        if not count or got != wanted:
            raise ValueError(
                f"AssignedPicture {self.name}: wanted at least one box and shapes {wanted}, got "
                f"{got}"
            )
        if not 0 <= np.min(self.labels) <= np.max(self.labels) < len(self.class_names):
            raise ValueError(
                f"AssignedPicture {self.name}: classes "
                f"{np.min(self.labels)}..{np.max(self.labels)}, but "
                f"{len(self.class_names)} names"
            )

    @property
    def has_anchors(self) -> bool:
        """Whether the network's predictions start from anchors."""
        return bool(self.priors.width.any())

    @cached_property
    def counts(self) -> np.ndarray:
        """Count the predictions of each box on each level, (N, L)."""
        levels = range(len(self.priors.strides))
        return np.stack([self.matches[:, self.priors.level == level].sum(1) for level in levels], 1)

    @cached_property
    def overlaps(self) -> np.ndarray:
        """Compute the IoU of every box with every predicted box, (N, A)."""
        return _iou(self.boxes, self.predicted)

    def best_overlaps(self) -> np.ndarray:
        """Compute each box's largest IoU with its assigned predicted boxes (0 without any), and
        with all predicted boxes, (N, 2).
        """
        return np.stack([(self.overlaps * self.matches).max(1), self.overlaps.max(1)], 1)

    def header(self) -> list[str]:
        """Column titles of ``rows``."""
        return [
            "box",
            "class",
            "size, px",
            *[f"stride {s}" for s in self.priors.strides],
            "all",
            "best IoU of these",
            "of any",
        ]

    def rows(self) -> list[list[object]]:
        """List for each box: number from 1, class, size, predictions on each level and in total,
        and the two best overlaps.
        """
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        return [
            [
                number,
                self.class_names[label],
                f"{side[0]:.0f} x {side[1]:.0f}",
                *map(int, counts),
                int(counts.sum()),
                f"{best[0]:.2f}" if counts.any() else "-",
                f"{best[1]:.2f}",
            ]
            for number, (label, side, counts, best) in enumerate(
                zip(self.labels, sides, self.counts, self.best_overlaps()), 1
            )
        ]


def draw_assignment(picture: AssignedPicture, path: str | Path | None = None) -> np.ndarray:
    """Draw a sheet with all boxes and the number of their predictions, a panel per level, and a
    list of the boxes.

    Every box has a color. On a level's panel, the cells of a box's predictions are filled with its
    color, in strips if a cell serves several boxes. Thin lines of that color show the anchors, or
    the predicted boxes of a network without anchors. A box without predictions is dashed and has a
    red label.

    Args:
        picture: what to draw.
        path: file to write; None writes nothing.

    Shape: -> uint8 BGR (h, w, 3).
    """
    height, width = picture.image.shape[:2]
    scale = _PANEL / max(height, width)
    panel = np.array([round(width * scale), round(height * scale)])
    panels = 1 + len(picture.priors.strides)
    columns = 2 if panels == 3 else 3  # leaves at least one cell for the list of boxes
    rows = -(-(panels + 1) // columns)
    pitch = panel + [_GAP, _TITLE + _GAP]
    sheet = pitch * [columns, rows] + [_GAP, _CAPTION]
    figure = Figure(figsize=tuple(sheet / _DPI), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)

    def place(number: int, cells: int = 1) -> Axes:
        left, top = pitch * divmod(number, columns)[::-1] + [_GAP, _TITLE]
        extent = (panel[0] + (cells - 1) * pitch[0], panel[1])
        return figure.add_axes(
            (left / sheet[0], 1 - (top + extent[1]) / sheet[1], *(extent / sheet))
        )

    _draw_overview(place(0), picture)
    for number in range(1, panels):
        _draw_level(place(number), picture, number - 1)
    _draw_list(place(panels, columns - panels % columns), picture)
    figure.text(
        _GAP / sheet[0],
        1.1 * _GAP / sheet[1],
        _caption(picture),
        size=_points(17),
        color=_INK,
        va="bottom",
    )
    canvas.draw()
    drawn = np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[:, :, 2::-1])
    if path is not None:
        write_image(path, drawn)
    return drawn


# ---- panels --------------------------------------------------------------------------------------


def _draw_overview(axes: Axes, picture: AssignedPicture) -> None:
    """Draw the image with every box and the number of its predictions."""
    _show(axes, picture.image, brightness=0.8)
    totals = picture.counts.sum(1)
    for index in range(len(totals)):
        _outline(axes, picture.boxes[index], _color(index), 2.2, dashed=not totals[index])
    few = len(totals) <= _NAMED_BOXES
    texts = []
    for index, total in enumerate(totals):
        name = (
            f" {_printable(picture, index)}: {total or 'none'}" if few else "" if total else " none"
        )
        texts.append(f"{index + 1}{name}")
    _label(
        axes,
        picture.boxes,
        texts,
        [_RED if not total else _color(k) for k, total in enumerate(totals)],
    )
    missed = int((totals == 0).sum())
    title = f"{picture.name}: {_plural(len(totals), 'box', 'boxes')}, {totals.sum()} matches"
    axes.set_title(
        title + (f", {missed} without any" if missed else ""),
        size=_points(16),
        parse_math=False,
        color=_RED if missed else _INK,
    )


def _draw_level(axes: Axes, picture: AssignedPicture, level: int) -> None:
    """Draw the grid of one level with the cells assigned to each box."""
    priors, here = picture.priors, picture.priors.level == level
    stride, matches = priors.strides[level], picture.matches[:, here]
    _show(axes, picture.image, brightness=0.5)
    _draw_grid(axes, picture.image.shape[:2], stride)
    found = np.flatnonzero(matches.any(1))
    for index in range(len(picture.boxes)):
        got = index in found
        _outline(
            axes,
            picture.boxes[index],
            _color(index),
            1.8 if got else 0.8,
            dashed=not got,
            alpha=1.0 if got else 0.6,
        )
    _fill_cells(axes, priors.cells()[here], matches)
    if picture.has_anchors:
        _mark_anchors(axes, priors, here, matches)
    _draw_centers(axes, picture.boxes[found], [_color(index) for index in found])
    shapes = (priors.anchors() if picture.has_anchors else picture.predicted)[here]
    for box, prediction in _outlined(matches, _iou(picture.boxes, shapes)):
        _outline(axes, shapes[prediction], _color(box), 0.7, alpha=0.9)
    _label(
        axes,
        picture.boxes[found],
        [str(index + 1) for index in found],
        [_color(index) for index in found],
    )
    axes.set_title(
        f"stride {stride}: {matches.any(0).sum()} of {_plural(int(here.sum()), 'prediction')} for "
        f"{_plural(len(found), 'box', 'boxes')}",
        size=_points(16),
        color=_INK,
    )


def _show(axes: Axes, image: np.ndarray, brightness: float) -> None:
    """Show the darkened, desaturated image as a background, in pixels of the network input."""
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2RGB)
    pale = (0.5 * gray + 0.5 * image[:, :, ::-1]) if brightness < 0.7 else image[:, :, ::-1]
    height, width = image.shape[:2]
    axes.imshow(
        (pale * brightness).astype(np.uint8), extent=(0, width, height, 0), interpolation="bilinear"
    )
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])


def _draw_grid(axes: Axes, size: tuple[int, int], stride: int) -> None:
    """Draw thin lines between the cells of a level."""
    height, width = size
    lines = [[(x, 0), (x, height)] for x in range(stride, width, stride)]
    lines += [[(0, y), (width, y)] for y in range(stride, height, stride)]
    axes.add_collection(LineCollection(lines, colors="white", linewidths=0.5, alpha=0.25))


def _fill_cells(axes: Axes, cells: np.ndarray, matches: np.ndarray) -> None:
    """Fill the matched cells (A, 4); a cell that serves several boxes gets a strip for each."""
    owners: dict[tuple[float, ...], set[int]] = {}
    for box, prediction in np.argwhere(matches):
        owners.setdefault(tuple(cells[prediction].tolist()), set()).add(int(box))
    patches, colors = [], []
    for (left, top, right, bottom), boxes in owners.items():
        strip = (right - left) / len(boxes)
        for number, box in enumerate(sorted(boxes)):
            patches.append(Rectangle((left + number * strip, top), strip, bottom - top))
            colors.append(_color(box))
    if patches:
        axes.add_collection(
            PatchCollection(patches, facecolors=colors, edgecolors="none", alpha=0.6)
        )


def _mark_anchors(axes: Axes, priors: Priors, here: np.ndarray, matches: np.ndarray) -> None:
    """Draw a marker per matched anchor in its cell, in the color of the box, and a legend of
    the markers.
    """
    sizes = np.stack([priors.width[here], priors.height[here]], 1)
    kinds = list(dict.fromkeys(map(tuple, sizes.tolist())))
    stride = priors.stride[here][0]
    pixel = max(axes.get_xlim()[1], axes.get_ylim()[0]) / _PANEL
    side = _points(float(np.clip(0.22 * stride / pixel, 3.0, 9.0)))
    for number, kind in enumerate(kinds):
        boxes, predictions = np.nonzero(matches & (sizes == kind).all(1))
        shift = (number - (len(kinds) - 1) / 2) * 0.28 * stride
        axes.scatter(
            priors.x[here][predictions] + shift,
            priors.y[here][predictions] + shift,
            s=side**2,
            marker=_MARKERS[number % len(_MARKERS)],
            c=[_color(box) for box in boxes] or None,
            edgecolors="white",
            linewidths=0.7,
            zorder=3,
            label=f"{kind[0]:g} x {kind[1]:g}",
        )
    legend = axes.legend(
        title="anchors",
        fontsize=_points(12),
        title_fontsize=_points(12),
        loc="upper right",
        framealpha=0.8,
        handletextpad=0.2,
        borderpad=0.3,
    )
    for handle in legend.legend_handles:
        handle.set(facecolor="white", edgecolor=_INK, sizes=[_points(9) ** 2])


def _draw_centers(axes: Axes, boxes: np.ndarray, colors: Sequence[object]) -> None:
    """Draw a dot at the center of each box."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    axes.scatter(
        *centers.T,
        s=_points(11) ** 2,
        c=list(colors) or None,
        edgecolors="white",
        linewidths=1.2,
        zorder=3.5,
    )


def _outlined(matches: np.ndarray, overlaps: np.ndarray) -> list[tuple[int, int]]:
    """Return the (box, prediction) pairs to outline: all if they are few, else the best of each
    box.
    """
    pairs = [(int(box), int(prediction)) for box, prediction in np.argwhere(matches)]
    if len(pairs) <= _OUTLINES:
        return pairs
    best = np.where(matches, overlaps, -1.0).argmax(1)
    return [(int(box), int(best[box])) for box in np.flatnonzero(matches.any(1))]


def _outline(
    axes: Axes,
    box: np.ndarray,
    color: object,
    line: float,
    *,
    dashed: bool = False,
    alpha: float = 1.0,
) -> None:
    """Draw the border of a box, ``line`` points wide; a thick line has a dark edge."""
    left, top, right, bottom = np.asarray(box, np.float64)
    border = axes.add_patch(
        Rectangle(
            (left, top),
            right - left,
            bottom - top,
            fill=False,
            edgecolor=color,
            linewidth=line,
            linestyle=(0, (4, 3)) if dashed else "solid",
            alpha=alpha,
        )
    )
    if line > 1 and not dashed:
        border.set_path_effects([Stroke(linewidth=line + 1.2, foreground=_INK), Normal()])


# ---- text ----------------------------------------------------------------------------------------


def _label(axes: Axes, boxes: np.ndarray, texts: Sequence[str], colors: Sequence[object]) -> None:
    """Write a strip of text at a corner of each box, beside earlier strips if there is room."""
    right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
    pixel = max(right, bottom) / _PANEL
    size = 15 if len(boxes) <= _NAMED_BOXES else 11
    taken = np.zeros((0, 4))
    for box, text, color in zip(boxes, texts, colors, strict=True):
        extent = np.array([_LETTER * size * len(text) + 6, _LINE * size]) * pixel
        x1, y1, x2, y2 = box
        far, low = x2 - extent[0], y2 - extent[1]
        corners = np.array(
            [
                (x1, y1 - extent[1]),
                (x1, y1),
                (far, y1 - extent[1]),
                (far, y1),
                (x1, low),
                (far, low),
                (x1, y2),
                (far, y2),
            ]
        )
        corners = np.clip(corners, 0, np.maximum([right, bottom] - extent, 0))
        ends = corners[:, None] + extent
        hidden = ((corners[:, None] < taken[:, 2:]) & (ends > taken[:, :2])).all(2).any(1)
        left, top = corners[int(hidden.argmin())]  # the first that is free, else the first
        taken = np.concatenate([taken, [[left, top, left + extent[0], top + extent[1]]]])
        axes.add_patch(Rectangle((left, top), *extent, facecolor=color, edgecolor="none", zorder=4))
        axes.text(
            left + extent[0] / 2,
            top + extent[1] / 2,
            text,
            size=_points(size),
            family="monospace",
            ha="center",
            va="center_baseline",
            color=_ink_on(color),
            zorder=5,
            parse_math=False,
        )


def _list_lines(picture: AssignedPicture, most: int) -> list[str]:
    """Format the list of boxes: a header and a line per box, at most ``most`` lines."""
    titles = [f"s{stride}" for stride in picture.priors.strides] + ["IoU", "any"]
    lines = [
        f"{'box':>6} {'class':{_NAME}} {'size':>9} " + "".join(f"{title:>6}" for title in titles)
    ]
    for index, (number, _, size, *counts, _, best, any_best) in enumerate(picture.rows()):
        values = [*(count or "." for count in counts), best, any_best]
        lines.append(
            f"{number:>6} {_printable(picture, index)[:_NAME]:{_NAME}} {size:>9} "
            + "".join(f"{value:>6}" for value in values)
        )
    if len(lines) > most:
        lines[most - 1 :] = [f"{'...':>6} and {len(lines) - most + 1} more"]
    return lines


def _draw_list(axes: Axes, picture: AssignedPicture) -> None:
    """Write the list of boxes, each with a square of its color; boxes without predictions are red.

    The list has one column or two, whichever allows the larger font.
    """
    place = axes.get_window_extent()
    whole = _list_lines(picture, 1 + len(picture.boxes))
    letters = (2 + max(map(len, whole))) * _LETTER

    def size_of(columns: int) -> float:
        return min(
            _LARGEST,
            place.height / -(-len(whole) // columns) / _LINE,
            place.width / columns / letters,
        )

    columns = 1 if size_of(1) >= size_of(2) else 2
    size = max(size_of(columns), _SMALLEST)
    per_column = int(place.height / _LINE / size + 1e-6)
    axes.set(xlim=(0, place.width), ylim=(place.height, 0))
    axes.axis("off")
    totals = picture.counts.sum(1)
    for number, line in enumerate(_list_lines(picture, per_column * columns)):
        listed = number > 0 and "..." not in line[:8]
        missed = listed and totals[number - 1] == 0
        column, row = divmod(number, per_column)
        x, y = column * place.width / columns, (row + 0.5) * _LINE * size
        axes.text(
            x,
            y,
            line,
            size=_points(size),
            family="monospace",
            va="center",
            color=_RED if missed else _INK,
            weight="bold" if number == 0 or missed else "normal",
            parse_math=False,
        )
        if listed:
            axes.add_patch(
                Rectangle(
                    (x + 2, y - 0.45 * size),
                    1.6 * size,
                    0.9 * size,
                    facecolor=_color(number - 1),
                    edgecolor=_RED if missed else "none",
                )
            )


def _caption(picture: AssignedPicture) -> str:
    """Return the explanation below the drawing."""
    shapes = "anchors" if picture.has_anchors else "predicted boxes"
    crowded = max(picture.counts.sum(0)) > _OUTLINES
    signs = "; markers: which anchor" if picture.has_anchors else ""
    return (
        f"Filled cells: predictions assigned to the box of that color{signs}. Dots: centers of "
        "boxes.\n"
        "Thin lines: their "
        f"{shapes}{' (only the best of each box)' if crowded else ''}. "
        "Dashed: a box without predictions on that level.\n"
        "IoU: best predicted box among the assigned ones, and among all (any)."
    )


def _plural(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _printable(picture: AssignedPicture, index: int) -> str:
    """Return the class name of a box if it is plain ASCII, else ``class`` and its number."""
    label = int(picture.labels[index])
    name = str(picture.class_names[label])
    return name if name.isascii() and name.isprintable() else f"class {label}"


def _points(pixels: float) -> float:
    """Convert a font size in pixels to points."""
    return pixels * 72 / _DPI


def _color(index: int) -> tuple[float, float, float]:
    """Return the color of a box: red, green, blue in 0..1."""
    blue, green, red = class_color(index)
    return red / 255, green / 255, blue / 255


def _ink_on(color: object) -> str:
    """Return black or white, whichever has more contrast with ``color``."""
    red, green, blue = (round(255 * part) for part in to_rgb(color))
    return "black" if ink_on((blue, green, red)) == (0, 0, 0) else "white"


def _iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compute the IoU of every pair, (N, 4) and (A, 4) xyxy -> (N, A) in 0..1."""
    boxes, others = np.asarray(boxes, np.float64)[:, None], np.asarray(others, np.float64)[None]
    corner, end = (
        np.maximum(boxes[..., :2], others[..., :2]),
        np.minimum(boxes[..., 2:], others[..., 2:]),
    )
    both = np.clip(end - corner, 0, None).prod(2)
    areas = [np.clip(b[..., 2:] - b[..., :2], 0, None).prod(2) for b in (boxes, others)]
    return both / np.maximum(areas[0] + areas[1] - both, 1e-9)

"""Convert an image to the network's input, and boxes back to the image. Uses NumPy and OpenCV, and
Pillow for models that need its bicubic filter.

The spec belongs to the model and is stored in every checkpoint and exported file, so that training,
evaluation, prediction and the runners in ``deploy/`` cannot disagree.
"""

import json
from dataclasses import asdict, dataclass, fields, replace

import numpy as np

from mindyolo_ext.errors import MissingPackageError, UsageError

# Roundings for which boxes use the rounded sides
OWN_FACTORS = ("down", "down_whole", "down_height")


@dataclass(frozen=True)
class Placement:
    """Position of a photo in the network input: ``network = photo * scale + pad``, in pixels,
    separately for x and y.
    """

    scale_x: float
    scale_y: float
    pad_x: float
    pad_y: float
    width: int  # of the photo
    height: int

    def to_network(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) xyxy in photo pixels -> (N, 4) xyxy in pixels of the network input."""
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        return (boxes * scale + np.array([self.pad_x, self.pad_y] * 2, np.float32)).astype(
            np.float32
        )

    def to_photo(self, boxes: np.ndarray, clip: bool = True) -> np.ndarray:
        """Boxes (N, 4) xyxy in pixels of the network input -> (N, 4) xyxy in photo pixels."""
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        boxes = ((boxes - np.array([self.pad_x, self.pad_y] * 2, np.float32)) / scale).astype(
            np.float32
        )
        if clip:
            boxes = np.clip(boxes, 0, np.array([self.width, self.height] * 2, np.float32))
        return boxes


@dataclass(frozen=True)
class InputSpec:
    """Input convention of a model.

    Args:
        size: (height, width) of the network input in pixels.
        color: ``bgr``, as OpenCV reads images, or ``rgb``.
        scale: factor for values 0..255. Then ``mean`` is subtracted and the result divided by
            ``std``, per channel in the order of ``color``.
        resize: ``stretch`` fills the input, ``letterbox`` keeps the aspect ratio and pads.
        pad_value: gray level of the padding.
        pad_anchor: position of a letterboxed photo, ``center`` or ``topleft``.
        scale_up: whether a letterboxed photo may be enlarged.
        rounding: how the sides of a letterboxed photo become whole pixels. ``nearest``: rounded to
            the nearest number. ``down``: rounded down; boxes use the factor of each rounded side
            and half of the padding, as in MindYOLO's training. ``down_whole``, ``down_height``:
            sides as ``down``; boxes use the factor of each rounded side and the padding in whole
            pixels, or the height's factor for both sides and half of the padding, as in YOLOv6's
            published and in its everyday evaluation. ``down_twice``: rounded down and, if the side
            that should fill the input lost a pixel, fitted a second time; boxes use the factor
            before rounding, as in YOLOX.
        shrink: ``linear``, or ``area`` to average pixels of letterboxed photos that get smaller.
        resample: ``linear``: OpenCV's two nearest pixels per side, or the method of ``shrink``.
            ``bicubic``: Pillow's cubic filter, which widens as a photo shrinks and so averages too;
            slower, needs Pillow.
        stride: height and width must be multiples of it.
        border: number of pixels by which a photo's longer side is shorter than the input's longer
            side, for any shape of the input; a photo that then does not fit is shrunk again. None:
            the photo is fitted into the input.

    Raises: ValueError for a value outside these rules.
    """

    size: tuple[int, int] = (640, 640)
    color: str = "bgr"
    scale: float = 1.0 / 255.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    resize: str = "letterbox"
    pad_value: int = 114
    pad_anchor: str = "center"
    scale_up: bool = True
    rounding: str = "nearest"
    shrink: str = "linear"
    resample: str = "linear"
    stride: int = 32
    border: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(int(v) for v in self.size))
        object.__setattr__(self, "mean", tuple(float(v) for v in self.mean))
        object.__setattr__(self, "std", tuple(float(v) for v in self.std))
        for name, value, allowed in (
            ("color", self.color, ("bgr", "rgb")),
            ("resize", self.resize, ("stretch", "letterbox")),
            ("pad_anchor", self.pad_anchor, ("center", "topleft")),
            ("rounding", self.rounding, ("nearest", *OWN_FACTORS, "down_twice")),
            ("shrink", self.shrink, ("linear", "area")),
            ("resample", self.resample, ("linear", "bicubic")),
        ):
            if value not in allowed:
                raise UsageError(f"InputSpec: {name} must be one of {allowed}, got {value!r}")
        if len(self.size) != 2 or any(v <= 0 or v % self.stride for v in self.size):
            raise UsageError(
                f"InputSpec: size must be (height, width), positive multiples of {self.stride}, "
                f"got {self.size}"
            )
        if self.resample == "bicubic" and self.shrink != "linear":
            raise UsageError(
                "InputSpec: resample bicubic already averages when a photo gets smaller, wanted "
                f"shrink linear with it, got {self.shrink!r}"
            )
        if self.border is not None and (
            self.border >= max(self.size)
            or self.resize == "stretch"
            or self.rounding not in OWN_FACTORS
        ):
            raise UsageError(
                f"InputSpec: border needs a letterbox, a rounding of {OWN_FACTORS} and less than "
                f"{max(self.size)} pixels, got {self.border}, {self.resize} and {self.rounding!r}"
            )

    def place(self, height: int, width: int) -> Placement:
        """Return the placement of a photo of ``height`` x ``width`` pixels."""
        net_h, net_w = self.size
        if self.resize == "stretch":
            return Placement(net_w / width, net_h / height, 0.0, 0.0, width, height)
        loaded_w, loaded_h = self._loaded(height, width)
        ratio = self._ratio(loaded_h, loaded_w)
        new_w, new_h = self._resized(loaded_h, loaded_w)
        free_x, free_y = (0, 0) if self.pad_anchor == "topleft" else (net_w - new_w, net_h - new_h)
        if self.rounding not in OWN_FACTORS:
            return Placement(ratio, ratio, float(free_x // 2), float(free_y // 2), width, height)
        # A photo that is shrunk again is rounded to the nearest pixel; YOLOv6's boxes use the
        # factor before that
        scale_x, scale_y = (
            (new_w / width, new_h / height)
            if self.border is None
            else (loaded_w * ratio / width, loaded_h * ratio / height)
        )
        if self.rounding == "down_whole":
            return Placement(
                scale_x, scale_y, float(free_x // 2), float(free_y // 2), width, height
            )
        return Placement(
            scale_y if self.rounding == "down_height" else scale_x,
            scale_y,
            free_x / 2,
            free_y / 2,
            width,
            height,
        )

    def in_frame(self, size: tuple[int, int]) -> "InputSpec":
        """Return the spec for an input of ``size`` (height, width); with a ``border``, photos keep
        their scale.
        """
        return replace(
            self,
            size=size,
            border=None if self.border is None else max(size) - max(self.size) + self.border,
        )

    def _loaded(self, height: int, width: int) -> tuple[int, int]:
        """(width, height) of the photo after its longer side is scaled as ``border`` requires."""
        if self.border is None:
            return width, height
        ratio = (max(self.size) - self.border) / max(height, width)
        return max(1, int(width * ratio)), max(1, int(height * ratio))

    def _ratio(self, height: int, width: int) -> float:
        """Return the factor that fits a photo into the network's size and keeps its aspect
        ratio.
        """
        ratio = min(self.size[0] / height, self.size[1] / width)
        return ratio if self.scale_up and self.border is None else min(ratio, 1.0)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """(width, height) of the photo after letterbox scaling, at least one pixel."""
        rule = round if self.rounding == "nearest" or self.border is not None else int
        ratio = self._ratio(height, width)
        return max(1, rule(width * ratio)), max(1, rule(height * ratio))

    def resize_image(self, image: np.ndarray) -> tuple[np.ndarray, Placement]:
        """BGR uint8 (h, w, 3) -> BGR uint8 of the network size, with the placement."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f"InputSpec: wanted a uint8 image (height, width, 3), got {image.dtype} "
                f"{image.shape}"
            )
        placement = self.place(*image.shape[:2])
        net_h, net_w = self.size
        if self.resize == "stretch":
            return _scaled(image, (net_w, net_h), "linear", self.resample), placement
        if self.border is not None:
            image = _scaled(image, self._loaded(*image.shape[:2]), self.shrink, self.resample)
        image = self.fit_image(image)
        if self.rounding == "down_twice":
            image = self.fit_image(image)
        new_h, new_w = image.shape[:2]
        if (new_h, new_w) == self.size:
            return image, placement
        canvas = np.full((net_h, net_w, 3), self.pad_value, np.uint8)
        top, left = int(placement.pad_y), int(placement.pad_x)
        canvas[top : top + new_h, left : left + new_w] = image
        return canvas, placement

    def fit_image(self, image: np.ndarray) -> np.ndarray:
        """Scale the photo to fit into the network's size, keeping its aspect ratio, without
        padding.
        """
        return _scaled(
            image,
            self._resized(*image.shape[:2]),
            "linear" if self.border is not None else self.shrink,
            self.resample,
        )

    @property
    def divides(self) -> bool:
        """Whether pixels are divided by 255, as in the originals, instead of multiplied by 1 / 255,
        which rounds differently.
        """
        return self.scale == 1.0 / 255.0

    @property
    def standardizes(self) -> bool:
        """Whether mean or standard deviation have an effect."""
        return any(self.mean) or any(v != 1.0 for v in self.std)

    def to_tensor(self, image: np.ndarray) -> np.ndarray:
        """BGR uint8 (H, W, 3) of any size -> float32 (3, H, W) in the model's convention."""
        if self.color == "rgb":
            image = image[:, :, ::-1]
        tensor = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32)
        if self.divides:
            tensor /= np.float32(255)
        elif self.scale != 1.0:
            tensor *= np.float32(self.scale)
        if self.standardizes:
            tensor -= np.array(self.mean, np.float32)[:, None, None]
            tensor /= np.array(self.std, np.float32)[:, None, None]
        return tensor

    def prepare(self, image: np.ndarray) -> tuple[np.ndarray, Placement]:
        """BGR uint8 photo (h, w, 3) -> network input (3, H, W) float32, with the placement."""
        resized, placement = self.resize_image(image)
        return self.to_tensor(resized), placement

    def to_json(self) -> str:
        """Return one line of JSON, as stored in checkpoints and exported files."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "InputSpec":
        """Read the output of ``to_json``. Raises: ValueError for unknown keys."""
        values = json.loads(text)
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"InputSpec: unknown keys {sorted(unknown)}")
        return cls(**values)


def _scaled(image: np.ndarray, shape: tuple[int, int], shrink: str, resample: str) -> np.ndarray:
    """Resize the image to ``shape`` (width, height); pixels are averaged if it shrinks and
    ``shrink`` is ``area``.
    """
    import cv2  # imported here, because reading a model's facts does not need it

    height, width = image.shape[:2]
    if shape == (width, height):
        return image
    if resample == "bicubic":
        return _pillow_bicubic(image, shape)
    smaller = max(shape) < max(width, height)
    return cv2.resize(
        image,
        shape,
        interpolation=cv2.INTER_AREA if smaller and shrink == "area" else cv2.INTER_LINEAR,
    )


def _pillow_bicubic(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize an image uint8 (h, w, 3) to ``shape`` (width, height). Channels do not mix, so their
    order does not matter.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackageError(
            "InputSpec: resample bicubic needs Pillow: pip install pillow"
        ) from error
    return np.array(
        Image.fromarray(np.ascontiguousarray(image)).resize(shape, Image.Resampling.BICUBIC)
    )

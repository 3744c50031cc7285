"""Transforms of albumentations as one step. The package is optional. Its last release, 2.0.8, is
under the MIT license; its successor AlbumentationsX, under the AGPL or a paid license, is not used.
"""

import importlib.util
import inspect
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np

from mindyolo_ext.data.augment.boxes import keep_boxes
from mindyolo_ext.data.augment.registry import AugmentContext, register_augmentation
from mindyolo_ext.data.types import Sample
from mindyolo_ext.errors import ConfigError, MissingPackageError, did_you_mean, shown

COMPOSITIONS = ("OneOf", "RandomOrder", "Sequential", "SomeOf")
# Arguments that a recipe cannot hold: functions, arrays, or additional images per call
_FROM_CODE = ("read_fn", "reference_images", "metadata_key", "font_path", "bboxes")


def check_transforms(keywords: Mapping[str, Any]) -> None:
    """Check that the keywords of the step ``albumentations`` describe transforms.

    Raises: ConfigError with the transform and what was wanted; MissingPackageError.
    """
    transforms = keywords.get("transforms", ())
    if not transforms:
        raise ConfigError(
            "wanted transforms, a list such as [{name: CLAHE, p: 0.1}], got an empty list"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # arguments that would be ignored
        for description in transforms:
            _built(_package(), description)


@register_augmentation(check=check_transforms)
def albumentations(
    sample: Sample,
    context: AugmentContext,
    *,
    transforms: Sequence[Any] = (),
    min_visible: float = 0.1,
    min_side: float = 2.0,
) -> Sample:
    """Apply transforms of albumentations in order to the image and its boxes.

    Args:
        transforms: names, or mappings with ``name`` and arguments; ``OneOf``, ``SomeOf``,
            ``Sequential`` and ``RandomOrder`` contain further ``transforms``.
        min_visible: share of a box's area that must remain within the image.
        min_side: length of both sides that must remain, in pixels.
    """
    package = _package()
    # Created for every image: a transform holds random state, which threads must not share
    made = [_built(package, description) for description in transforms]
    limits = {"min_visibility": min_visible, "min_width": min_side, "min_height": min_side}
    moved = {
        "bbox_params": package.BboxParams("pascal_voc", label_fields=["rows"], clip=True, **limits)
    }
    is_moving = any(_moves_pixels(package, transform) for transform in made)
    compose = package.Compose(made, **(moved if is_moving else {}))
    compose.set_random_seed(int(context.rng.integers(2**31)))
    found = compose(
        image=np.ascontiguousarray(sample.image[:, :, ::-1]),  # RGB
        **({"bboxes": sample.boxes, "rows": np.arange(len(sample.boxes))} if is_moving else {}),
    )
    image = found["image"]
    if image.dtype != np.uint8 or image.shape[2:] != (3,):
        raise ConfigError(
            f"albumentations: wanted a uint8 image of three channels after the transforms, got "
            f"{image.dtype} {image.shape}; leave out transforms that change the type"
        )
    changed = replace(sample, image=np.ascontiguousarray(image[:, :, ::-1]))
    if not is_moving:
        return changed
    boxes = np.asarray(found["bboxes"], np.float32).reshape(-1, 4)
    return replace(keep_boxes(changed, np.asarray(found["rows"], np.int64)), boxes=boxes)


def _moves_pixels(package: ModuleType, transform: Any) -> bool:
    """Whether a transform, or one inside it, moves pixels."""
    if isinstance(transform, package.BaseCompose):
        return any(_moves_pixels(package, inner) for inner in transform.transforms)
    return not isinstance(transform, package.ImageOnlyTransform)


def _package() -> ModuleType:
    """Import the package. Raises: MissingPackageError if it is missing or another version."""
    if importlib.util.find_spec("albumentations") is None:
        raise MissingPackageError(
            "albumentations is not installed; pip install 'albumentations==2.0.8', the last "
            "release under the MIT license"
        )
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # stops its network request at import
    import albumentations as package

    if not package.__version__.startswith("2.0.") or int(package.__version__.split(".")[2]) > 8:
        raise MissingPackageError(
            f"wanted albumentations 2.0.8, the last release under the MIT license, got "
            f"{package.__version__}; AlbumentationsX has the same import name and is AGPL: "
            "pip uninstall albumentationsx; pip install 'albumentations==2.0.8'"
        )
    return package


def _built(package: ModuleType, description: Any) -> Any:
    """Create the transform that a recipe's name or mapping describes."""
    arguments = {"name": description} if isinstance(description, str) else description
    if not isinstance(arguments, Mapping) or not isinstance(arguments.get("name"), str):
        raise ConfigError(
            f"wanted the name of a transform, or a mapping with name, got {shown(description)}"
        )
    arguments = dict(arguments)
    name = arguments.pop("name")
    kind = _kind(package, name)
    if name in COMPOSITIONS:
        inner = arguments.pop("transforms", None)
        if not isinstance(inner, list) or not inner:
            raise ConfigError(f"{name}: wanted transforms, a list, got {shown(inner)}")
        arguments["transforms"] = [_built(package, its) for its in inner]
    known = [key for key in inspect.signature(kind.__init__).parameters if key != "self"]
    for key in arguments:
        if key not in known:
            raise ConfigError(f"{name}: unknown argument {key}{did_you_mean(key, known)}")
    try:
        made = kind(**{key: _tuples(value) for key, value in arguments.items()})
    except (ValueError, TypeError, UserWarning) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{name}: {shown(reason, 300)}") from error
    wanted = set() if name in COMPOSITIONS else set(made.targets_as_params) - {"image", "bboxes"}
    if wanted:
        raise ConfigError(f"{name}: requires {', '.join(sorted(wanted))}, which images here lack")
    return made


def _kind(package: ModuleType, name: str) -> Any:
    """Return the class ``name``. Raises: ConfigError if a recipe cannot use it."""
    kind = vars(package).get(name)
    if _is_usable(package, name, kind):
        return kind
    usable = [key for key, its in vars(package).items() if _is_usable(package, key, its)]
    why = "it needs Python code, or does not move boxes" if kind is not None else "no such name"
    raise ConfigError(f"no transform {shown(name)} ({why}){did_you_mean(name, usable)}")


def _is_usable(package: ModuleType, name: str, kind: Any) -> bool:
    """Whether a member of the package is a transform that a recipe can describe, and that either
    moves no pixels or moves boxes along.
    """
    if name in COMPOSITIONS:
        return True
    if not inspect.isclass(kind) or not issubclass(kind, package.BasicTransform):
        return False
    if set(_FROM_CODE) & set(inspect.signature(kind.__init__).parameters):
        return False
    if issubclass(kind, package.ImageOnlyTransform):
        return kind is not package.ImageOnlyTransform
    return any(target.name == "BBOXES" for target in getattr(kind, "_targets", None) or ())


def _tuples(value: Any) -> Any:
    """Convert lists of numbers in ``value`` to tuples, the package's form of ranges."""
    is_range = isinstance(value, list) and all(isinstance(one, (int, float)) for one in value)
    return tuple(value) if is_range else value

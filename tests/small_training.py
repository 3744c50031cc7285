"""A data set of drawn shapes and a recipe that trains on it in seconds."""

from pathlib import Path
from typing import Any

from mindyolo_ext.backend import launch
from mindyolo_ext.config import Config, config_from_mapping
from mindyolo_ext.data.shapes import make_shapes_dataset


def small_shapes(folder: Path, *, train_images: int, val_images: int) -> Path:
    """Start the framework on the CPU and draw images of 64 x 64 pixels into ``folder``."""
    launch.start("CPU", seed=0)
    return make_shapes_dataset(
        folder,
        train_images=train_images,
        val_images=val_images,
        size=(64, 64),
        seed=1,
        progress=False,
    )


def small_recipe(
    shapes: Path,
    train: dict[str, Any],
    *,
    workers: int = 0,
    keywords: dict[str, Any] | None = None,
    evaluation: dict[str, Any] | None = None,
) -> Config:
    """A YOLO-FastestV2 on a data set of ``small_shapes``, at its size, without pictures.

    Args:
        train: the section ``train``.
        keywords: of the model.
        evaluation: the section ``eval``.
    """
    splits = {
        name: {
            "format": "coco",
            "images": f"images/{name}",
            "annotations": f"annotations/{name}.json",
        }
        for name in ("train", "val")
    }
    return config_from_mapping(
        {
            "model": {"name": "yolo_fastestv2", "keywords": keywords or {}},
            "input": {"size": [64, 64]},
            "data": {"root": str(shapes), "augment": ["resize"], "workers": workers, **splits},
            "train": {"pictures": False, **train},
            "eval": evaluation or {},
        }
    )

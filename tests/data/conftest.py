"""Small data sets for the tests of the data package."""

from pathlib import Path

import pytest

from mindyolo_ext.data.dataset import Dataset, build_dataset
from mindyolo_ext.data.shapes import make_shapes_dataset


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """19 + 5 drawn pictures, in every label form."""
    return make_shapes_dataset(
        tmp_path_factory.mktemp("shapes"),
        train_images=19,
        val_images=5,
        size=(72, 96),
        seed=3,
        progress=False,
    )


@pytest.fixture
def shapes(shapes_folder: Path) -> Dataset:
    """The 19 training pictures."""
    return build_dataset(
        {"format": "coco", "images": "images/train", "annotations": "annotations/train.json"},
        shapes_folder,
    )


@pytest.fixture(scope="session")
def real_data(shared: Path) -> Path:
    """Folder with coco_val128, coco128 and bccd; skips without it."""
    if not (shared / "data").is_dir():
        pytest.skip(f"no real data in {shared}")
    return shared / "data"

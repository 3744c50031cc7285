"""Split a data set into folds with balanced classes, and write the files of each fold."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tabulate import tabulate

from mindyolo_ext.atomic import write_json, write_text
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.errors import ExistingFileError, UsageError, shown

_STREAM = 5  # random stream; loader, images, selection and rectangles have others


def assign_folds(dataset: Dataset, folds: int, seed: int = 0) -> np.ndarray:
    """Assign each image to a fold, (n,) int64, so that folds have nearly equal numbers of boxes of
    every class, and numbers of images that differ by at most one.

    Classes are processed one at a time, always the one with the fewest unassigned images. Each of
    its images, in random order, goes to the fold that lacks most boxes of that class, with ties
    broken by the number of missing images, unless the fold is full. Images without boxes fill up
    the folds at the end.

    Args:
        folds: number of folds, at least 2 and at most the number of images.
        seed: seed of the order.

    Raises: UsageError for another number of folds.
    Source: iterative stratification, Sechidis et al. 2011, on numbers of boxes.
    """
    count = len(dataset)
    if not 2 <= folds <= count:
        raise UsageError(
            f"split: wanted 2..{count} folds, the number of images of {dataset.name}, got {folds}"
        )
    labels = [dataset.labels(index) for index in range(count)]
    order = np.random.default_rng([seed, 0, 0, _STREAM]).permutation(count)
    images_of: list[list[int]] = [[] for _ in dataset.class_names]
    for index in order.tolist():
        for label in np.unique(labels[index]).tolist():
            images_of[label].append(index)
    boxes = np.bincount(np.concatenate(labels), minlength=len(images_of)) / folds
    images = count // folds + (np.arange(folds) < count % folds)
    wanted = _Wanted(np.tile(boxes, (folds, 1)), images)
    fold_of = np.full(count, -1)
    left = set(range(len(images_of)))
    while left:
        label = min(left, key=lambda its: (np.sum(fold_of[images_of[its]] < 0), its))
        left.remove(label)
        for index in images_of[label]:
            if fold_of[index] < 0:
                fold_of[index] = wanted.give(labels[index], label)
    for index in order[fold_of[order] < 0].tolist():
        fold_of[index] = wanted.give(labels[index], None)
    return fold_of


class _Wanted:
    """Boxes and images that each fold still lacks.

    Args:
        boxes: (folds, K) missing boxes of each class.
        images: (folds,) missing images.
    """

    def __init__(self, boxes: np.ndarray, images: np.ndarray):
        self.boxes, self.images = boxes, images

    def give(self, labels: np.ndarray, label: int | None) -> int:
        """Choose the fold for an image with boxes of ``labels`` while balancing ``label``."""
        lacks = self.images if label is None else self.boxes[:, label]
        lacks = np.where(self.images > 0, lacks, -np.inf)
        most = np.flatnonzero(lacks == lacks.max())
        fold = int(most[self.images[most].argmax()])
        np.subtract.at(self.boxes[fold], labels, 1)
        self.images[fold] -= 1
        return fold


def write_folds(
    dataset: Dataset,
    fold_of: np.ndarray,
    folder: Path,
    *,
    description: Mapping[str, Any],
    data_root: Path,
    title: str,
) -> list[Path]:
    """Write annotations and an overlay recipe for each fold, each file completely or not at all:
    ``fold0/train.json`` and ``fold0/val.json`` in COCO format, and ``fold0.yaml``. For data sets of
    format yolo also write ``fold0/data.yaml`` with lists of images, for ``--data`` and ultralytics.

    Args:
        fold_of: result of ``assign_folds``.
        folder: folder to write to.
        description: description of the data set in its recipe.
        data_root: folder that its paths refer to.
        title: name of the data set and how it was split, for the first line of the recipes.

    Returns: the recipes.
    Raises: ExistingFileError if the folder holds folds; WriteError if a file cannot be written.
    """
    recipes = [folder / f"fold{fold}.yaml" for fold in range(int(fold_of.max()) + 1)]
    there = next((path for path in recipes if path.exists()), None)
    if there is not None:
        raise ExistingFileError(f"{there} already exists; choose another --save_dir")
    writer = _Writer(dataset, dict(description), data_root.resolve())
    for fold, recipe in enumerate(recipes):
        parts = {"train": np.flatnonzero(fold_of != fold), "val": np.flatnonzero(fold_of == fold)}
        described = {}
        for split, indices in parts.items():
            file = (folder / f"fold{fold}" / f"{split}.json").resolve()
            write_json(file, writer.annotations(indices))
            described[split] = writer.described(file)
        if writer.has_lists:
            writer.write_lists(folder / f"fold{fold}", parts)
        counts = f"{len(parts['train'])} images to train on, {len(parts['val'])} to evaluate on"
        content = {"data": {"root": str(writer.root), **described}}
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
        write_text(recipe, f"# Fold {fold} of {len(recipes)} of {title}: {counts}\n{text}")
    return recipes


class _Writer:
    """Content of the files of a fold.

    Args:
        description: description of the data set.
        root: folder that its paths refer to.
    """

    def __init__(self, dataset: Dataset, description: dict[str, Any], root: Path):
        self.dataset, self.description, self.root = dataset, description, root
        self.has_lists = description["format"] == "yolo" and not description.get("labels")
        folders = {os.path.dirname(os.path.abspath(path)) for path in dataset.paths}
        self.images = os.path.commonpath(sorted(folders))
        self.source: dict[str, Any] | None = None
        if description["format"] == "coco":
            self.source = json.loads((root / description["annotations"]).read_bytes())

    def described(self, file: Path) -> dict[str, Any]:
        """Describe a part whose annotations are in ``file``."""
        if self.source is not None:
            return {**self.description, "annotations": str(file)}
        outlines = {"polygons": True} if self.dataset.has_polygons else {}
        return {"format": "coco", "images": self.images, "annotations": str(file), **outlines}

    def annotations(self, indices: np.ndarray) -> dict[str, Any]:
        """Return some images in COCO format, with the source's own entries if it is COCO."""
        part = self.dataset.only_images(indices)
        if self.source is not None:
            wanted = set(part.image_ids)
            images = [its for its in self.source["images"] if int(its["id"]) in wanted]
            rows = [r for r in self.source["annotations"] if int(r["image_id"]) in wanted]
            return {**self.source, "images": images, "annotations": rows}
        content = part.coco_ground_truth()
        for image, path in zip(content["images"], part.paths, strict=True):
            image["file_name"] = os.path.relpath(os.path.abspath(path), self.images)
        annotations = iter(content["annotations"])
        for index, image in enumerate(content["images"]):
            for outline in part.polygons(index):
                row = next(annotations)
                if outline is not None:
                    points = outline * (image["width"], image["height"])
                    row["segmentation"] = [points.reshape(-1).tolist()]
        return content

    def write_lists(self, folder: Path, parts: Mapping[str, np.ndarray]) -> None:
        """Write ``train.txt``, ``val.txt`` and the ``data.yaml`` that names them."""
        for split, indices in parts.items():
            paths = [os.path.abspath(self.dataset.paths[index]) for index in indices]
            write_text(folder / f"{split}.txt", "".join(f"{path}\n" for path in paths))
        names = dict(enumerate(self.dataset.class_names))
        content = {"path": str(folder.resolve()), "train": "train.txt", "val": "val.txt"}
        text = yaml.safe_dump({**content, "names": names}, sort_keys=False, allow_unicode=True)
        write_text(folder / "data.yaml", text)


def folds_table(dataset: Dataset, fold_of: np.ndarray, most_classes: int = 8) -> str:
    """Format a table of images and boxes per fold, with columns for the rarest classes."""
    counts = dataset.class_counts()
    order = np.argsort(counts, kind="stable")
    rarest = order[counts[order] > 0][:most_classes]
    rows = []
    for fold in range(int(fold_of.max()) + 1):
        part = dataset.only_images(np.flatnonzero(fold_of == fold))
        own = part.class_counts()
        rows.append((fold, len(part), int(own.sum()), *own[rarest].tolist()))
    names = [shown(dataset.class_names[label], 20) for label in rarest]
    return tabulate(rows, ("fold", "images", "boxes", *names), tablefmt="simple")

"""Draw a family's label assignment on the user's data: the predictions that are trained on each
box.
"""

import difflib
import logging
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from tabulate import tabulate

from mindyolo_ext import progress
from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.backend.compiled import Compiled
from mindyolo_ext.config import Config
from mindyolo_ext.contracts import Model, Trainable
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.pipeline import Pipeline
from mindyolo_ext.data.targets import padded_count, targets_of
from mindyolo_ext.data.types import Sample
from mindyolo_ext.engine.build import (
    load_model,
    load_teacher,
    new_model,
    new_trainable,
    training_pipeline,
)
from mindyolo_ext.engine.stages import stage_at
from mindyolo_ext.errors import DataError, UsageError
from mindyolo_ext.visual.assignment import AssignedPicture, draw_assignment

logger = logging.getLogger(__name__)


class MatchesAndBoxes(nn.Cell):
    """A trainable's matches and its model's predicted boxes in one graph, with batch norms in
    evaluation mode.

    Shape: images (B, 3, H, W), targets (B, M, 5), mask (B, M) -> matches (B, M, A) 0/1, boxes (B,
    A, 4) xyxy pixels.
    """

    def __init__(self, trainable: Trainable):
        super().__init__(auto_prefix=False)
        self.trainable = trainable
        self.set_train(False)

    def construct(self, images: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        boxes, _ = self.trainable.model.predict(images)
        return self.trainable.matches(images, targets, mask), boxes


def assign(
    config: Config,
    indices: Sequence[int],
    save_dir: str | Path,
    *,
    dataset: Dataset,
    weight: str | Path | None = None,
    augment: bool = False,
) -> list[Path]:
    """Draw the assignment for images of a data set, and log a table for each.

    Call ``backend.launch.start`` first.

    Args:
        config: the recipe; loss and augmentation are those of its first epoch.
        indices: images of ``dataset``, see ``choose_pictures``.
        save_dir: folder of the drawings.
        dataset: source of the images, see ``engine.build.split_dataset``.
        weight: checkpoint of this project; None uses fresh weights.
        augment: augment the images as in the first epoch of training; else only resize them.

    Returns: the files that were written.
    Raises: ValueError if weights and data differ in their classes, none of the images has a box,
        or ``save_dir`` is a folder of the data set; FileNotFoundError without such a checkpoint.
    """
    folder = Path(save_dir)
    if folder.resolve() in {Path(dataset.paths[index]).resolve().parent for index in indices}:
        raise UsageError(f"assign: {folder} holds the images themselves; choose another --save_dir")
    model = _model(config, dataset, weight)
    loss, steps = stage_at(config, 0)
    pipeline = training_pipeline(
        steps if augment else [], model.input_spec, dataset, seed=config.train.seed
    )
    samples = _with_boxes(pipeline, indices)
    source = config.train.distill.teacher
    teacher = load_teacher(source, model, dataset) if source else None
    run = Compiled(MatchesAndBoxes(new_trainable(model, loss, teacher)))
    most = padded_count(max(len(targets_of(sample)) for sample in samples.values()))
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for index, sample in samples.items():
        with progress.compiling(
            "assignment and network", show=not written, done="compiled and ran"
        ):
            picture = _assigned(run, model, sample, dataset.class_names, most=most)
        path = folder / f"{Path(sample.path).stem}.png"
        if path in written:
            path = folder / f"{path.stem}_{index}.png"
        draw_assignment(picture, path)
        written.append(path)
        logger.info(
            "\n%s (image %d of %s)\n%s\n%s",
            path,
            index,
            dataset.name,
            _summary(picture),
            tabulate(picture.rows(), picture.header(), disable_numparse=True),
        )
    return written


def choose_pictures(
    dataset: Dataset, *, image: Sequence[str] = (), index: Sequence[int] = (), count: int = 4
) -> list[int]:
    """Indices of the images that the user chose, without repetition.

    Args:
        dataset: source of the images.
        image: file names with or without suffix, paths, or patterns with ``*``.
        index: numbers from 0.
        count: number of images with boxes, spread over the data set; used without ``image`` and
            ``index``.

    Raises: ValueError for a name that matches no image (with the closest names), an index outside
        the data set, a count below 1, or a data set without boxes.
    """
    if image:
        return list(dict.fromkeys(found for text in image for found in _named(dataset, text)))
    if index:
        wrong = [number for number in index if not 0 <= number < len(dataset)]
        if wrong:
            raise UsageError(
                f"--index: {dataset.name} has images 0..{len(dataset) - 1}, got {wrong}"
            )
        return list(dict.fromkeys(index))
    if count < 1:
        raise UsageError(f"--count must be at least 1, got {count}")
    filled = [number for number in range(len(dataset)) if len(dataset.labels(number))]
    if not filled:
        raise DataError(
            f"{dataset.name}: none of {len(dataset)} images has a box, so there is nothing to "
            "assign"
        )
    places = np.linspace(0, len(filled) - 1, min(count, len(filled))).round().astype(int)
    return [filled[place] for place in places]


def _named(dataset: Dataset, text: str) -> list[int]:
    """Indices of the images that a name or pattern matches."""
    wanted = Path(text)
    found = []
    for index, path in enumerate(map(Path, dataset.paths)):
        if "*" in text or "?" in text:
            same = fnmatch(path.name, wanted.name) and fnmatch(str(path), f"*{text}")
        else:
            same = (
                wanted.name in (path.name, path.stem)
                and path.parts[-len(wanted.parts) : -1] == wanted.parts[:-1]
            )
        if same:
            found.append(index)
    if not found:
        names = sorted({Path(path).name for path in dataset.paths})
        near = [name for name in names if wanted.stem.strip("*?") in name][:3]
        near = near or difflib.get_close_matches(wanted.name, names, 3, 0.5) or names[:3]
        raise UsageError(
            f"--image {text}: no such image among the {len(dataset)} of {dataset.name}; the "
            f"closest names are {', '.join(near)}"
        )
    return found


def _model(config: Config, dataset: Dataset, weight: str | Path | None) -> Model:
    """The network with the weights of a checkpoint, or with fresh ones and a warning."""
    classes = len(dataset.class_names)
    if weight is None:
        logger.warning(
            "no --weight: the network has fresh weights. Its predicted boxes mean nothing yet, and "
            "if the assigner uses predictions (as SimOTA does) the matches are arbitrary too"
        )
        return new_model(config, classes)
    model, metadata = load_model(weight, config)
    if metadata.num_classes != classes:
        raise UsageError(
            f"{weight}: has {metadata.num_classes} classes, but {dataset.name} has {classes} "
            f"({', '.join(dataset.class_names[:5])}{', ...' if classes > 5 else ''})"
        )
    return model


def _with_boxes(pipeline: Pipeline, indices: Sequence[int]) -> dict[int, Sample]:
    """The images by index as the network sees them; those without boxes are named and left out."""
    prepared = {index: pipeline(index) for index in indices}
    empty = [
        Path(pipeline.dataset.paths[index]).name
        for index, one in prepared.items()
        if one.ignore.all()
    ]
    if len(empty) == len(prepared):
        raise DataError(
            f"assign: no box in {', '.join(empty[:4])}{', ...' if len(empty) > 4 else ''}, so "
            "there is nothing to assign; choose other images"
        )
    if empty:
        logger.warning("left out because they have no box: %s", ", ".join(empty))
    return {index: one for index, one in prepared.items() if not one.ignore.all()}


def _assigned(
    run: Compiled, model: Model, sample: Sample, class_names: Sequence[str], *, most: int
) -> AssignedPicture:
    """Assign the boxes of one image, padded to ``most``."""
    rows = targets_of(sample)
    targets, mask = np.zeros((1, most, 5), np.float32), np.zeros((1, most), np.float32)
    targets[0, : len(rows)], mask[0, : len(rows)] = rows, 1.0
    image = model.input_spec.to_tensor(sample.image)[None]
    matches, predicted = (array[0] for array in run(image, targets, mask))
    kept = ~sample.ignore
    return AssignedPicture(
        Path(sample.path).name,
        sample.image,
        sample.boxes[kept],
        sample.labels[kept],
        class_names,
        model.priors(*sample.image.shape[:2]),
        matches[: len(rows)] > 0.5,
        predicted,
    )


def _summary(picture: AssignedPicture) -> str:
    """Count the matched predictions and boxes of each level."""
    priors, parts = picture.priors, []
    for level, stride in enumerate(priors.strides):
        matches = picture.matches[:, priors.level == level]
        parts.append(
            f"stride {stride}: {matches.any(0).sum()} of {matches.shape[1]} predictions for "
            f"{matches.any(1).sum()} of {len(matches)} boxes"
        )
    return "; ".join(parts)

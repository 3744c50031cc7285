"""Our training of a task, step by step: the network with its loss, and the augmented batches."""

from collections.abc import Iterator

from truth_families import FAMILIES, Task

from mindyolo_ext.config import load_config
from mindyolo_ext.contracts import Trainable
from mindyolo_ext.data.loader import Loader
from mindyolo_ext.data.types import Batch
from mindyolo_ext.engine.build import (
    new_model,
    new_trainable,
    split_dataset,
    start_from,
    training_pipeline,
)


def our_training(task: Task, seed: int) -> tuple[Trainable, Loader]:
    """The trainable with the seed's start weights, which ``make_start`` wrote, and its images."""
    family = FAMILIES[task.family]
    config = load_config(family.recipe, family.settings(task, task.folder, seed))
    dataset = split_dataset(config, "train")
    model = new_model(config, len(task.names))
    start_from(model, task.folder / "start" / f"seed_{seed}.ckpt")
    loader = Loader(
        training_pipeline(config.data.augment, model.input_spec, dataset, seed=seed),
        batch_size=task.batch,
        max_boxes=config.data.max_boxes or None,
        shuffle=True,
        drop_last=True,
        seed=seed,
        workers=0,
        pixels="float32",
    )
    return new_trainable(model, config.train.loss), loader


def batches(loader: Loader) -> Iterator[Batch]:
    """Without end, epoch after epoch."""
    epoch = 0
    while True:
        yield from loader.epoch(epoch)
        epoch += 1

"""``mindyolo-ext reproduce``: check that published weights reach the published AP here."""

import argparse
import logging
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mindyolo_ext.cli.arguments import add_config, add_machine, add_set, add_setting, add_workers
from mindyolo_ext.cli.recipe import digest, given, start
from mindyolo_ext.errors import MissingFileError, ReproductionError, UsageError

if TYPE_CHECKING:
    from mindyolo_ext.checkpoint.metadata import CheckpointMetadata
    from mindyolo_ext.config import Config
    from mindyolo_ext.engine.evaluate_file import Loaded
    from mindyolo_ext.engine.reproduce import Goal, Reproduction

logger = logging.getLogger("mindyolo_ext")
OWN = (".ckpt", ".safetensors")


def add_reproduce(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``reproduce``."""
    parser.add_argument("model", metavar="MODEL", help="one of `mindyolo-ext models`, gold_yolo_n")
    parser.add_argument(
        "--weights",
        "--weight",
        type=Path,
        required=True,
        metavar="FILE",
        help="the authors' weights in their original format, or a mindyolo_ext checkpoint; nothing "
        "is downloaded",
    )
    add_setting(
        parser,
        "--data_root",
        "data.root",
        "folder of COCO (val2017 and annotations), or of VOC for the simple YOLO",
        metavar="DIR",
    )
    parser.add_argument(
        "--reference",
        metavar="NUMBER|FILE[:ENTRY]",
        help="expected result on these images: a number in percent, or a JSON file with numbers by "
        "name in 0..1 (docs/parity.md) (default: the published result)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="POINTS",
        default=0.1,
        help="allowed difference in percentage points (default: 0.1)",
    )
    parser.add_argument(
        "--save_dir",
        type=Path,
        metavar="DIR",
        help="folder for the report, the converted checkpoint and the detections (default: "
        "runs/reproduce/MODEL)",
    )
    add_config(parser, text="recipe that describes the data set")
    add_workers(parser)
    add_setting(parser, "--per_batch_size", "eval.per_batch_size", type=int)
    add_set(parser, "any key of the recipe; the report lists every departure from the protocol")
    add_machine(parser)


def reproduce(options: argparse.Namespace) -> None:
    """Convert, evaluate by the authors' protocol, compare, and write a report.

    Raises: ReproductionError if a number differs by more than the tolerance.
    """
    this = _prepared(options)
    config = this.config()
    world = start(options, 0, config, digest(options.weights) + str(options.reference))
    if world.is_main:
        this.convert()
    _wait_for_main()
    goal, metadata = this.goal()
    config = this.config(goal)
    found = _measured(this, goal, metadata, config)
    if found is None:
        return  # a rank other than 0
    from mindyolo_ext.engine.reproduce import save_report

    paths = save_report(this.folder, found)
    logger.info("\n%s\n\nreport: %s, %s", found.table(), *paths)
    if not found.passed:
        raise ReproductionError(f"{found.verdict()}; attach {paths[0]} to an issue")
    logger.info("%s", found.verdict())


@dataclass(frozen=True)
class _Task:
    """The weights to check, and how.

    Args:
        model: registry name.
        recipe: file or name of the recipe.
        weights: file of the weights.
        folder: folder for all output.
    """

    options: argparse.Namespace
    model: str
    recipe: str | Path
    weights: Path
    folder: Path

    @property
    def checkpoint(self) -> Path:
        """Return the path of the weights in our format."""
        return self.weights if self.weights.suffix in OWN else self.folder / f"{self.model}.ckpt"

    def config(self, goal: "Goal | None" = None) -> "Config":
        """Return the recipe at the published input size, with the protocol's settings, then the
        flags, applied.
        """
        from mindyolo_ext.config import load_config
        from mindyolo_ext.models.registry import variant

        options = self.options
        texts = [f"input.size={list(variant(self.model).input_size)}"]
        texts += [] if goal is None else goal.texts()
        texts += given(options)
        return load_config(self.recipe, [*texts, *options.set], overlays=options.overlays)

    def convert(self) -> None:
        """Convert the weights if another program wrote them."""
        if self.checkpoint == self.weights:
            return
        from mindyolo_ext.checkpoint.convert import convert

        report = self.folder / "convert.json"
        done = convert(self.weights, self.checkpoint, model=self.model, report=report)
        logger.info("\n%s", done.table())

    def goal(self) -> "tuple[Goal, CheckpointMetadata]":
        """Return the expected results. Raises: UsageError for weights of another model."""
        from mindyolo_ext.checkpoint.store import load_checkpoint
        from mindyolo_ext.engine.reproduce import goal_of

        metadata = load_checkpoint(self.checkpoint)[1]
        if metadata.model != self.model:
            raise UsageError(
                f"{self.weights}: holds weights of {metadata.model}, not of {self.model}"
            )
        part = metadata.extra.get("part")
        if part:
            raise UsageError(
                f"{self.weights}: holds only the {part.get('name')} of {self.model}, wanted the "
                "weights of the whole network"
            )
        return goal_of(metadata, self.options.reference, where=self.weights), metadata


def _prepared(options: argparse.Namespace) -> _Task:
    """Check the options that can be checked up front, and return the task."""
    from mindyolo_ext.config.shipped import recipe_of_model
    from mindyolo_ext.models.registry import family_of, list_models

    model = options.model.lower().replace("-", "_")
    family_of(model)
    if not options.weights.is_file():
        raise MissingFileError(
            f"--weights {options.weights}: no such file; `mindyolo-ext models` lists where to "
            "download the authors' weights"
        )
    if not options.tolerance >= 0:
        raise UsageError(f"--tolerance {options.tolerance}: wanted percentage points, 0 or more")
    recipe = options.config or recipe_of_model(model, list_models())
    folder = options.save_dir or Path("runs", "reproduce", model)
    return _Task(options, model, recipe, options.weights, folder)


def _wait_for_main() -> None:
    from mindyolo_ext.backend.distributed import barrier

    barrier()


def _measured(
    this: _Task, goal: "Goal", metadata: "CheckpointMetadata", config: "Config"
) -> "Reproduction | None":
    """Evaluate and compare; None on ranks other than 0."""
    from mindyolo_ext.engine.build import split_dataset
    from mindyolo_ext.engine.check import check_recipe
    from mindyolo_ext.engine.evaluate_file import load_for_test
    from mindyolo_ext.engine.reproduce import (
        Reproduction,
        check_images,
        compared,
        facts_of_data,
    )

    check_recipe(config)
    try:
        dataset = split_dataset(config, "val")
    except MissingFileError as error:
        raise MissingFileError(
            f"{error}; --data_root must name the folder with {goal.data or 'the data'} "
            "(docs/parity.md)"
        ) from error
    check_images(goal, dataset)
    loaded = load_for_test(this.checkpoint, config, dataset, split="val")
    logger.info("%s: %s, input %s", this.weights, loaded.title, loaded.predictor.input_spec.size)
    numbers = _evaluated(loaded, goal, config, this)
    if numbers is None:
        return None
    settings, changed = _in_force(goal, config, loaded)
    return Reproduction(
        this.model,
        goal,
        compared(goal, numbers, this.options.tolerance),
        this.options.tolerance,
        weights=_facts_of_weights(this, metadata),
        data=facts_of_data(loaded.dataset, config.data.root),
        settings=settings,
        versions=_versions(),
        command=_command(),
        date=_today(),
        changed=changed,
        numbers=numbers,
    )


def _evaluated(
    loaded: "Loaded", goal: "Goal", config: "Config", this: _Task
) -> dict[str, float] | None:
    """Write the detections and return all metrics in percent; None on ranks other than 0."""
    from mindyolo_ext.backend.launch import world
    from mindyolo_ext.engine.datasets import worker_count
    from mindyolo_ext.engine.reproduce import (
        numbers_of_evaluation,
        numbers_of_tradeoff,
        wants_shares,
    )

    workers = worker_count(config, world().local_size)
    keywords = {"workers": workers, "worker_kind": config.data.worker_kind}
    if wants_shares(goal):
        from mindyolo_ext.engine.accuracy_speed import accuracy_over_speed
        from mindyolo_ext.engine.thresholds import check_router

        check_router(loaded.predictor.network, this.weights)
        curve = accuracy_over_speed(loaded.predictor, loaded.dataset, config.eval, **keywords)
        if curve is None:
            return None
        curve.save(this.folder, loaded.title)
        return numbers_of_tradeoff(curve)
    from mindyolo_ext.atomic import write_text
    from mindyolo_ext.engine.evaluate import evaluate

    result = evaluate(
        loaded.predictor,
        loaded.dataset,
        config.eval,
        save_dir=this.folder,
        class_names=loaded.class_names,
        **keywords,
    )
    if result.coco is None:
        return None
    write_text(this.folder / "metrics.txt", result.table() + "\n")
    return numbers_of_evaluation(result)


def _in_force(goal: "Goal", config: "Config", loaded: "Loaded") -> tuple[dict[str, str], list[str]]:
    """Return the values in force of the protocol's settings, and the ones that differ from it."""
    from dataclasses import asdict

    values, settings, changed = asdict(config), {}, []
    for key, wanted in goal.settings.items():
        section, _, name = key.partition(".")
        settings[key] = str(values[section][name])
        if values[section][name] != wanted:
            changed.append(f"{key} {values[section][name]} instead of {wanted}")
    settings["input"] = loaded.predictor.input_spec.to_json()
    settings["precision"] = config.train.amp_level
    return settings, changed


def _facts_of_weights(this: _Task, metadata: "CheckpointMetadata") -> dict[str, str]:
    """Return name, size and checksum of the file, and what it was recognized as."""
    source = metadata.source
    return {
        "file": this.weights.name,
        "bytes": f"{this.weights.stat().st_size}",
        "SHA-256": digest(this.weights),
        "format": str(source.get("format", "a checkpoint of mindyolo_ext")),
        "moving average": str(source.get("ema", "not known")),
        "model": f"{metadata.model}, {metadata.num_classes} classes",
        "architecture": str(metadata.architecture),
        "assumed": str(metadata.extra.get("assumed", "nothing")),
    }


def _versions() -> dict[str, str]:
    """Return versions and settings of this machine, without names of users, hosts and folders."""
    from mindyolo_ext.backend.launch import device
    from mindyolo_ext.engine.doctor import machine
    from mindyolo_ext.engine.doctor_report import tidied

    facts = {name: tidied(value) for name, value in machine() if value != "not installed"}
    return {**facts, "device": device()}


def _command() -> str:
    """Return the command line, without the home folder."""
    from mindyolo_ext.engine.doctor_report import tidied

    return tidied(shlex.join(["mindyolo-ext", *sys.argv[1:]]))


def _today() -> str:
    from datetime import datetime, timezone

    return datetime.now(timezone.utc).date().isoformat()

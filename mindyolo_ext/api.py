"""Training and evaluation as functions, like ``mindyolo-ext train`` and ``test``.

    import mindyolo_ext

    run = mindyolo_ext.train("yolox-nano", data="data.yaml", epochs=50)
    found = mindyolo_ext.evaluate(run.best, data="data.yaml")
    print(found.values()["AP"])
    mindyolo_ext.export(run.best, ["onnx"])

``settings`` takes any key of a recipe, as ``--set`` does: ``{"train.optimizer.lr": 0.01}``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mindyolo_ext.errors import UsageError

if TYPE_CHECKING:
    from mindyolo_ext.config import Config
    from mindyolo_ext.engine.evaluate import EvalResult
    from mindyolo_ext.engine.train import TrainResult

Settings = Mapping[str, object]


def train(
    recipe: "str | Path | Config",
    save_dir: str | Path | None = None,
    *,
    data: str | Path | None = None,
    weight: str | Path | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    size: int | tuple[int, int] | None = None,
    resume: bool = False,
    settings: Settings | None = None,
    device_target: str | None = None,
    is_parallel: bool = False,
) -> "TrainResult":
    """Train a network.

    Args:
        recipe: a file, the name of a shipped recipe (``yolox-nano``), or a ``Config``.
        save_dir: folder of the run; default ``runs/NAME`` of the recipe.
        data: ``data.yaml`` of ultralytics or Roboflow, the folder that contains it, or a ``.data``
            file of darknet; replaces the recipe's data set.
        weight: checkpoint of this project to start from.
        epochs: number of epochs.
        batch: images per step and rank.
        size: of the network input in pixels: a side, or height and width.
        resume: continue the run in ``save_dir``.
        settings: further keys of the recipe; they override the arguments above.
        device_target: ``CPU``, ``GPU`` or ``Ascend``; None uses the device of this process, or the
            best one available.
        is_parallel: train together with the other processes of mpirun or msrun.

    Returns: the folder of the run, and its best result.
    Raises: ConfigError for a recipe that does not fit its data; ExistingFileError if ``save_dir``
        holds a run and ``resume`` is False; MissingFileError; DataError; TrainingError.
    """
    from mindyolo_ext import framework
    from mindyolo_ext.engine.data_file import check_validation

    changes = _texts(
        {
            "train.weight": None if weight is None else str(weight),
            "train.epochs": epochs,
            "train.per_batch_size": batch,
            "input.size": _sides(size),
        }
    )
    config = _read(recipe, data, [*changes, *_texts(settings or {})])
    if data is not None and config.train.run_eval:
        check_validation(str(data))
    framework.follow(config.train.backend)
    _start(config, config.train.seed, device_target, is_parallel)
    from mindyolo_ext.engine.train import train as run

    name = Path(recipe).stem if isinstance(recipe, (str, Path)) else "run"
    return run(config, Path("runs") / name if save_dir is None else Path(save_dir), resume=resume)


def evaluate(
    weight: str | Path,
    recipe: "str | Path | Config | None" = None,
    *,
    data: str | Path | None = None,
    split: str = "val",
    save_dir: str | Path | None = None,
    batch: int | None = None,
    size: int | tuple[int, int] | None = None,
    easy: float | None = None,
    runtime: str | None = None,
    settings: Settings | None = None,
    device_target: str | None = None,
    is_parallel: bool = False,
) -> "EvalResult":
    """Compute the metrics of a checkpoint or an exported file on a data set.

    Args:
        weight: checkpoint of this project, or a file of ``export``.
        recipe: as in ``train``; by default the shipped one of the checkpoint's model, with the
            checkpoint's own input size.
        data: as in ``train``.
        split: ``train``, ``val`` or ``test``.
        save_dir: folder for tables, pictures and ``detections.json``; None writes nothing.
        batch: images per run of the network, per rank.
        size: as in ``train``.
        easy: for a routed model, the target share of easy images.
        runtime: runtime of the network, as in ``Detector``; None selects the default.
        settings, device_target, is_parallel: as in ``train``.

    Returns: detections and metrics; ``values()`` returns all metrics by name. Ranks other than 0
        have no metrics.
    Raises: UsageError if the data set has another number of classes; CheckpointError;
        MissingFileError; DataError; ConfigError.
    """
    from mindyolo_ext.engine.network import recipe_of_weight
    from mindyolo_ext.runtimes.names import devices_of

    if split not in ("train", "val", "test"):
        raise UsageError(f"evaluate: split must be train, val or test, got {split!r}")
    own = ["input.size=[]"] if recipe is None else []
    changes = _texts({"eval.per_batch_size": batch, "input.size": _sides(size)})
    config = _read(
        recipe_of_weight(Path(weight)) if recipe is None else recipe,
        data,
        [*own, *changes, *_texts(settings or {})],
    )
    device, beside = devices_of(Path(weight), runtime, device_target)
    _start(config, 0, beside, is_parallel)
    from mindyolo_ext.engine.build import split_dataset
    from mindyolo_ext.engine.check import check_recipe
    from mindyolo_ext.engine.evaluate_file import load_for_test, run_test

    check_recipe(config)
    dataset = split_dataset(config, split)
    loaded = load_for_test(
        Path(weight), config, dataset, split=split, easy=easy, runtime=runtime, device=device
    )
    folder = None if save_dir is None else Path(save_dir)
    return run_test(loaded, config, folder)


def _read(recipe: "str | Path | Config", data: str | Path | None, changes: list[str]) -> "Config":
    """Read the recipe, with another data set and ``section.key=value`` strings."""
    from mindyolo_ext.config import load_config, override
    from mindyolo_ext.engine.data_file import data_overrides

    if data is not None:
        base = load_config(recipe) if isinstance(recipe, (str, Path)) else recipe
        polygons = bool(base.data.train.get("polygons"))
        changes = [*data_overrides(str(data), polygons=polygons), *changes]
    if isinstance(recipe, (str, Path)):
        return load_config(recipe, changes)
    return override(recipe, changes)


def _texts(values: Settings) -> list[str]:
    """``section.key=value`` for all values that are not None."""
    return [
        f"{key}={json.dumps(value, default=str)}"
        for key, value in values.items()
        if value is not None
    ]


def _sides(size: int | tuple[int, int] | None) -> list[int] | None:
    """Convert a size to [height, width]."""
    if size is None:
        return None
    return [size, size] if isinstance(size, int) else list(size)


def _start(config: "Config", seed: int, device_target: str | None, is_parallel: bool) -> None:
    """Start the framework and the ranks."""
    from mindyolo_ext.backend import launch
    from mindyolo_ext.backend.graph_options import GraphOptions

    options = GraphOptions.of(config.train)
    launch.start(device_target, is_parallel=is_parallel, seed=seed, options=options)

"""Read the recipe that the flags of a command describe, and start the framework with it."""

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mindyolo_ext.errors import UsageError, shown

if TYPE_CHECKING:
    from mindyolo_ext.backend.launch import World
    from mindyolo_ext.config import Config


def read_recipe(
    options: argparse.Namespace,
    extra: Sequence[str] = (),
    *,
    weight: Path | None = None,
    instead: str = "",
) -> "Config":
    """Read the recipe and apply the given flags, then ``extra``.

    Args:
        extra: ``section.key=value`` strings.
        weight: mindyolo_ext checkpoint; without ``--config`` and ``--model``, its model selects the
            recipe, and its input size is used.
        instead: flags that replace ``--config`` and ``--model`` for verbs that build no network,
            named in the message; ``--data`` alone is then enough.

    Raises: UsageError if no flag selects a recipe.
    """
    from mindyolo_ext.config import Config, load_config, override
    from mindyolo_ext.engine.data_file import data_overrides

    path = recipe_path(options)
    own: list[str] = []
    if path is None and weight is not None:
        from mindyolo_ext.engine.network import recipe_of_weight

        path, own = recipe_of_weight(weight), ["input.size=[]"]
    if path is None and not (instead and options.data):
        raise UsageError(
            "wanted --config RECIPE (`mindyolo-ext recipes`) or --model NAME (`mindyolo-ext "
            "models`)" + (f" or {instead}" if instead else "")
        )
    base = Config() if path is None else load_config(path, overlays=options.overlays)
    texts = [*own, *given(options)]
    if options.img_size:
        texts.append(f"input.size={list(input_size(options) or ())}")
    texts += extra
    if options.data:
        polygons = bool(base.data.train.get("polygons"))
        texts = [*data_overrides(options.data, polygons=polygons), *texts]
    if path is None:
        return override(base, texts)
    return load_config(path, texts, overlays=options.overlays)


def recipe_path(options: argparse.Namespace) -> Path | None:
    """Return the file of ``--config``, or of the recipe for ``--model``; None without either.

    Raises: UsageError for both; as ``recipe_of_model``.
    """
    if options.model is None:
        return options.config
    if options.config is not None:
        raise UsageError(
            f"--model {shown(options.model)}: selects the recipe of that model, so leave out "
            "--config; to run another network with a recipe, use --set model.name=NAME"
        )
    from mindyolo_ext.config.shipped import recipe_of_model
    from mindyolo_ext.models.registry import list_models

    return Path(recipe_of_model(options.model, list_models()))


def given(options: argparse.Namespace) -> list[str]:
    """Return ``section.key=value`` for every given flag of a setting. The value is JSON, which is
    valid YAML, so any text stays text.
    """
    values = vars(options)
    return [
        f"{key}={json.dumps(values[flag], ensure_ascii=False, default=str)}"
        for flag, key in options.setting_keys.items()
        if values[flag] is not None
    ]


def input_size(options: argparse.Namespace) -> tuple[int, int] | None:
    """Return (height, width) from ``--img_size``."""
    if not options.img_size:
        return None
    if len(options.img_size) > 2:
        raise UsageError(f"--img_size: wanted a side or height and width, got {options.img_size}")
    return options.img_size[0], options.img_size[-1]


def start(options: argparse.Namespace, seed: int, config: "Config", extra: str = "") -> "World":
    """Start the framework and the ranks; ranks other than 0 log only warnings.

    Compiled graphs contain constants of the recipe, so each combination of recipe and ``extra`` has
    its own folder in the cache.
    """
    from mindyolo_ext.backend import launch
    from mindyolo_ext.backend.graph_options import GraphOptions

    recipe = config.to_yaml() + extra
    cache = options.compile_cache and launch.cache_folder(options.compile_cache, recipe)
    this = launch.start(
        options.device_target,
        is_parallel=options.is_parallel,
        graph_mode=options.ms_mode == 0,
        compile_cache=cache,
        seed=seed,
        options=GraphOptions.of(config.train),
    )
    if not this.is_main:
        logging.getLogger().setLevel(logging.WARNING)
    return this


def digest(path: Path) -> str:
    """Compute the SHA-256 of a file; a folded network holds its weights as constants."""
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""

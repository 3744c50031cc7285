"""The registry of families with their models, losses and augmentations.

A family is a folder beside this file with a ``FAMILY`` record. Reading the records loads no
framework; a family's ``network`` and ``loss`` are imported when one of its models or trainables is
built.
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, TypeVar

import mindyolo_ext.models
from mindyolo_ext.contracts import Family, Model, Trainable, Variant
from mindyolo_ext.errors import ConfigError, closest, did_you_mean

Builder = TypeVar("Builder", bound=Callable[..., Any])
_BUILDERS: dict[str, dict[str, Callable[..., Any]]] = {"model": {}, "loss": {}}


# ---- families --------------------------------------------------------------------------------


@functools.cache
def families() -> dict[str, Family]:
    """Return every family's record by name, sorted."""
    found = {}
    for module in pkgutil.iter_modules(mindyolo_ext.models.__path__):
        if module.ispkg:
            found[module.name] = importlib.import_module(
                f"mindyolo_ext.models.{module.name}"
            ).FAMILY
    return dict(sorted(found.items()))


def family(name: str) -> Family:
    """Return the record called ``name``. Raises: ConfigError that lists the known names."""
    return families()[_known("family", name, families())]


def part(family_name: str, module: str) -> ModuleType:
    """Import the module ``network``, ``loss``, ``names``, ``augment`` or ``variants`` of a
    family.
    """
    return importlib.import_module(f"mindyolo_ext.models.{family(family_name).name}.{module}")


def load_augmentations() -> None:
    """Register the augmentations of all families."""
    for record in families().values():
        if record.augmentations:
            part(record.name, "augment")


# ---- models ----------------------------------------------------------------------------------


def list_models() -> list[str]:
    """Return the names of all models, sorted."""
    return sorted(_family_of_model())


def family_of(model: str) -> Family:
    """Return the family of a model. Raises: ConfigError that lists the known models."""
    return families()[_family_of_model()[_known("model", model, _family_of_model())]]


def variant(model: str) -> Variant:
    """Return the facts about a model. Raises: ConfigError that lists the known models."""
    return family_of(model).variants[model]


def model_keywords(name: str) -> list[str]:
    """Return the keywords of the builder of ``name``. Raises: ConfigError for an unknown name."""
    return _keywords(_builder("model", name))


def check_model_keywords(name: str, keywords: Iterable[str]) -> None:
    """Raises: ConfigError for an unknown name, or a keyword that its builder does not accept."""
    _check_keywords(f"model {name}", keywords, model_keywords(name))


def create_model(name: str, num_classes: int = 80, **keywords: object) -> Model:
    """Build the model ``name`` in training form.

    Args:
        name: registry name, for example ``yolo_fastestv2``.
        num_classes: classes of the head.
        keywords: passed to the builder.

    Raises: ConfigError for an unknown name, or a keyword or value that the builder does not accept.
    """
    check_model_keywords(name, keywords)
    return _built(_builder("model", name), num_classes=num_classes, **keywords)


def register_model(builder: Builder) -> Builder:
    """Register a function that builds a model, under the function's name (decorator)."""
    return _register("model", builder)


# ---- losses ----------------------------------------------------------------------------------


def list_trainables() -> list[str]:
    """Return the names of all trainables, sorted."""
    return sorted(_family_of_loss())


def default_loss(family_name: str) -> str:
    """Return the trainable of a recipe that names none."""
    return family(family_name).losses[0]


def create_trainable(name: str, model: Model, **keywords: object) -> Trainable:
    """Build the trainable ``name`` around ``model``; ``keywords`` are the config's ``train.loss``.

    Raises: ConfigError for an unknown name, or a keyword or value that it does not accept.
    """
    check_loss_keywords(name, keywords)
    return _built(_builder("loss", name), model, **keywords)


def loss_keywords(name: str) -> list[str]:
    """Return the keywords of the trainable ``name``. Raises: ConfigError for an unknown name."""
    return _keywords(_builder("loss", name))


def check_loss_keywords(name: str, keywords: Iterable[str]) -> None:
    """Raises: ConfigError for an unknown name, or a keyword that this trainable does not accept."""
    _check_keywords(f"loss {name}", keywords, loss_keywords(name))


def register_trainable(builder: Builder) -> Builder:
    """Register a function that wraps a model into a trainable, under the function's name
    (decorator).
    """
    return _register("loss", builder)


# ---- shared ----------------------------------------------------------------------------------


def _family_of_model() -> dict[str, str]:
    return {model: name for name, record in families().items() for model in record.variants}


def _family_of_loss() -> dict[str, str]:
    return {loss: name for name, record in families().items() for loss in record.losses}


def _builder(what: str, name: str) -> Callable[..., Any]:
    """Return the builder of a model or loss, after importing its module."""
    owners = _family_of_model() if what == "model" else _family_of_loss()
    owner = owners[_known(what, name, owners)]
    part(owner, "network" if what == "model" else "loss")
    return _BUILDERS[what][name]


def _register(what: str, builder: Builder) -> Builder:
    """Register ``builder`` under its own name and return it. Raises: ValueError if the name is
    taken.
    """
    if builder.__name__ in _BUILDERS[what]:
        raise ValueError(f"two {what} builders are called {builder.__name__!r}")
    _BUILDERS[what][builder.__name__] = builder
    return builder


def _keywords(builder: Callable[..., Any]) -> list[str]:
    """Return the keyword-only parameters of a builder, which a recipe can set."""
    parameters = inspect.signature(builder).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def _check_keywords(where: str, keywords: Iterable[str], known: Iterable[str]) -> None:
    """Raises: ConfigError for one of ``keywords`` that is not ``known``."""
    for key in keywords:
        if key not in known:
            raise ConfigError(f"{where}: unknown keyword {key!r}{did_you_mean(key, known)}")


def _built(builder: Callable[..., Any], *arguments: object, **keywords: object) -> Any:
    """Call the builder. Raises: ConfigError for a value that a constructor refuses."""
    try:
        return builder(*arguments, **keywords)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _known(what: str, name: str, known: Iterable[str]) -> str:
    """Return ``name``. Raises: ConfigError with the closest of ``known`` if it is none of them."""
    if name not in known:
        near = closest(name, known)
        hint = f", did you mean {near}?" if near else ""
        raise ConfigError(f"unknown {what} {name!r}{hint}; known are {', '.join(sorted(known))}")
    return name

"""Families by name, and with them models, losses and augmentations.

A family is a folder beside this file with a ``FAMILY`` record. The records, and what they say of
names and variants, load no framework; a family's ``network`` and ``loss`` are imported when a model
or trainable of it is built.
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
    """Every family's record by its name, sorted."""
    found = {}
    for module in pkgutil.iter_modules(mindyolo_ext.models.__path__):
        if module.ispkg:
            found[module.name] = importlib.import_module(
                f"mindyolo_ext.models.{module.name}"
            ).FAMILY
    return dict(sorted(found.items()))


def family(name: str) -> Family:
    """The record called ``name``. Raises: ConfigError that lists the known names."""
    return families()[_known("family", name, families())]


def part(family_name: str, module: str) -> ModuleType:
    """The module ``network``, ``loss``, ``names``, ``augment`` or ``variants`` of a family."""
    return importlib.import_module(f"mindyolo_ext.models.{family(family_name).name}.{module}")


def load_augmentations() -> None:
    """Make the augmentations of all families known to ``data``."""
    for record in families().values():
        if record.augmentations:
            part(record.name, "augment")


# ---- models ----------------------------------------------------------------------------------


def list_models() -> list[str]:
    """Names of all models, sorted."""
    return sorted(_family_of_model())


def family_of(model: str) -> Family:
    """The family of a model. Raises: ConfigError that lists the known models."""
    return families()[_family_of_model()[_known("model", model, _family_of_model())]]


def variant(model: str) -> Variant:
    """The facts of a model. Raises: ConfigError that lists the known models."""
    return family_of(model).variants[model]


def model_keywords(name: str) -> list[str]:
    """Keywords of the builder of ``name``. Raises: ConfigError for an unknown name."""
    return _keywords(_builder("model", name))


def check_model_keywords(name: str, keywords: Iterable[str]) -> None:
    """Raises: ConfigError for an unknown name, or a keyword that its builder does not take."""
    _check_keywords(f"model {name}", keywords, model_keywords(name))


def create_model(name: str, num_classes: int = 80, **keywords: object) -> Model:
    """Build the model ``name`` in training form.

    Args:
        name: registry name, for example ``yolo_fastestv2``.
        num_classes: classes of the head.
        keywords: handed to the builder.

    Raises: ConfigError for a name that is not registered, a keyword that the builder does not take,
        or a value that it refuses.
    """
    check_model_keywords(name, keywords)
    return _built(_builder("model", name), num_classes=num_classes, **keywords)


def register_model(builder: Builder) -> Builder:
    """Decorator of a function that builds a model, known by the function's name."""
    return _register("model", builder)


# ---- losses ----------------------------------------------------------------------------------


def list_trainables() -> list[str]:
    """Names of all trainables, sorted."""
    return sorted(_family_of_loss())


def default_loss(family_name: str) -> str:
    """The trainable of a recipe that names none."""
    return family(family_name).losses[0]


def create_trainable(name: str, model: Model, **keywords: object) -> Trainable:
    """Build the trainable ``name`` around ``model``; ``keywords`` are the config's ``train.loss``.

    Raises: ConfigError for a name that is not registered, a keyword that it does not take, or a
        value that it refuses.
    """
    check_loss_keywords(name, keywords)
    return _built(_builder("loss", name), model, **keywords)


def loss_keywords(name: str) -> list[str]:
    """Keywords of the trainable ``name``. Raises: ConfigError for an unknown name."""
    return _keywords(_builder("loss", name))


def check_loss_keywords(name: str, keywords: Iterable[str]) -> None:
    """Raises: ConfigError for an unknown name, or a keyword that this trainable does not take."""
    _check_keywords(f"loss {name}", keywords, loss_keywords(name))


def register_trainable(builder: Builder) -> Builder:
    """Decorator of a function that wraps a model into a trainable, known by its name."""
    return _register("loss", builder)


# ---- shared ----------------------------------------------------------------------------------


def _family_of_model() -> dict[str, str]:
    return {model: name for name, record in families().items() for model in record.variants}


def _family_of_loss() -> dict[str, str]:
    return {loss: name for name, record in families().items() for loss in record.losses}


def _builder(what: str, name: str) -> Callable[..., Any]:
    """The builder of a model or loss, after importing the module of its family that has it."""
    owners = _family_of_model() if what == "model" else _family_of_loss()
    owner = owners[_known(what, name, owners)]
    part(owner, "network" if what == "model" else "loss")
    return _BUILDERS[what][name]


def _register(what: str, builder: Builder) -> Builder:
    """``builder``, after entering it under its own name. Raises: ValueError if that is taken."""
    if builder.__name__ in _BUILDERS[what]:
        raise ValueError(f"two {what} builders are called {builder.__name__!r}")
    _BUILDERS[what][builder.__name__] = builder
    return builder


def _keywords(builder: Callable[..., Any]) -> list[str]:
    """The keyword-only parameters of a builder: what a recipe can set."""
    parameters = inspect.signature(builder).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def _check_keywords(where: str, keywords: Iterable[str], known: Iterable[str]) -> None:
    """Raises: ConfigError for one of ``keywords`` that is not ``known``."""
    for key in keywords:
        if key not in known:
            raise ConfigError(f"{where}: unknown keyword {key!r}{did_you_mean(key, known)}")


def _built(builder: Callable[..., Any], *arguments: object, **keywords: object) -> Any:
    """What the builder makes. Raises: ConfigError for a value that its constructors refuse."""
    try:
        return builder(*arguments, **keywords)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _known(what: str, name: str, known: Iterable[str]) -> str:
    """``name``. Raises: ConfigError with the closest of ``known`` if it is none of them."""
    if name not in known:
        near = closest(name, known)
        hint = f", did you mean {near}?" if near else ""
        raise ConfigError(f"unknown {what} {name!r}{hint}; known are {', '.join(sorted(known))}")
    return name

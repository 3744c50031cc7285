"""Model builders by name; the registry name of a model is the name of its builder function."""
from collections.abc import Callable
from typing import TypeVar

from mindyolo_ext.backend import nn

Builder = TypeVar("Builder", bound=Callable[..., nn.Cell])
_BUILDERS: dict[str, Callable[..., nn.Cell]] = {}


def register_model(builder: Builder) -> Builder:
    """Return ``builder`` after entering it in the registry under its own name."""
    if builder.__name__ in _BUILDERS:
        raise ValueError(f"register_model: two builders are called {builder.__name__!r}")
    _BUILDERS[builder.__name__] = builder
    return builder


def list_models() -> list[str]:
    """All registered names, sorted."""
    return sorted(_BUILDERS)


def create_model(name: str, num_classes: int = 80, **keywords: object) -> nn.Cell:
    """Build the model ``name`` in training form.

    Args:
        name: registry name, for example ``yolo_fastestv2``.
        num_classes: classes of the head.
        keywords: handed to the builder; one it does not know is a TypeError.

    Raises: ValueError for a name that is not registered.
    """
    if name not in _BUILDERS:
        raise ValueError(f"create_model: unknown model {name!r}, known are {', '.join(list_models())}")
    return _BUILDERS[name](num_classes=num_classes, **keywords)

"""Model builders by name; the registry name of a model is the name of its builder function."""

from mindyolo_ext.backend import nn
from mindyolo_ext.registry import Registry

_MODELS = Registry("model")
register_model = _MODELS.register
list_models = _MODELS.names


def create_model(name: str, num_classes: int = 80, **keywords: object) -> nn.Cell:
    """Build the model ``name`` in training form.

    Args:
        name: registry name, for example ``yolo_fastestv2``.
        num_classes: classes of the head.
        keywords: handed to the builder; one it does not know is a TypeError.

    Raises: ValueError for a name that is not registered.
    """
    return _MODELS.builder(name)(num_classes=num_classes, **keywords)

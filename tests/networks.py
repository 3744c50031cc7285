"""Helpers for the network tests of all families."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mindyolo_ext.backend import Tensor, nn


class ModelAndDeploy(nn.Cell):
    """A network beside its deploy form, in inference mode; ``construct`` returns the outputs that a
    test needs.
    """

    names: tuple[str, ...]  # of those outputs

    def __init__(self, model: nn.Cell):
        super().__init__(auto_prefix=False)
        self.model, self.deploy = model, model.to_deploy()
        self.set_train(False)


class Everything(ModelAndDeploy):
    """Raw heads, decoded rows, deploy form and both predictions in one graph."""

    names = ("heads", "decoded", "deploy", "predicted", "deploy_predicted")

    def construct(self, images):
        heads = self.model(images)
        return (
            heads,
            self.model.decode(heads),
            self.deploy(images),
            self.model.predict(images),
            self.deploy.predict(images),
        )


def outputs_of(network: ModelAndDeploy, images: np.ndarray) -> dict[str, Any]:
    """Arrays by name; a tuple of tensors is a list."""
    return dict(zip(network.names, as_arrays(network(Tensor(images))), strict=True))


def as_arrays(part: Any) -> Any:
    """Nested tuples of tensors as lists of arrays."""
    return [as_arrays(x) for x in part] if isinstance(part, (tuple, list)) else part.asnumpy()


def number_of(parameters: Sequence[Any]) -> int:
    """The number of values in all parameters."""
    return sum(int(np.prod(parameter.shape)) for parameter in parameters)

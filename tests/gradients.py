"""Gradients and optimizer steps of a trainable, for the golden tests of all families."""

import json
from collections.abc import Callable, Sequence

import numpy as np
from helpers import GoldenCase, original_name

from mindyolo_ext.backend import Parameter, Tensor, nn
from mindyolo_ext.backend.gradients import value_and_grad


class LossAndHeads(nn.Cell):
    """The trainable, with the raw heads beside its terms."""

    def __init__(self, trainable: nn.Cell):
        super().__init__(auto_prefix=False)
        self.trainable = trainable

    def construct(self, images, targets, mask):
        heads = self.trainable.model(images)
        total, terms = self.trainable.loss(heads, targets, mask)
        return total, terms, heads


class Gradients(nn.Cell):
    """Value and parameter gradients as a cell; a bare ``value_and_grad`` would keep the weights of
    its first call.
    """

    def __init__(self, forward: nn.Cell):
        super().__init__(auto_prefix=False)
        self.value = forward
        self.function = value_and_grad(forward, None, forward.trainable_params(), has_aux=True)

    def construct(self, *inputs):
        return self.function(*inputs)


def original_order(case: GoldenCase, model: nn.Cell) -> list[int]:
    """Positions among the trainable parameters of ``model``, in the order of the case's ``grad_*``
    arrays.
    """
    names = [name for name, parameter in model.parameters_and_names() if parameter.requires_grad]
    places = {original_name(name): i for i, name in enumerate(names)}
    return [
        places[name] for name in json.loads((case.variant_folder / "grad_names.json").read_text())
    ]


def norms_and_sums(
    gradients: Sequence[np.ndarray], order: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """L2 norm and sum of each gradient in ``order``, added up in float64."""
    ordered = [gradients[i].astype(np.float64) for i in order]
    return np.array([np.sqrt((g * g).sum()) for g in ordered]), np.array([g.sum() for g in ordered])


def nesterov_totals(
    step: Callable[[], tuple[float, Sequence[np.ndarray]]],
    parameters: Sequence[Parameter],
    *,
    rate: float,
    steps: int,
    momentum: float = 0.9,
) -> list[float]:
    """Total before each of ``steps`` updates of ``parameters`` by Nesterov SGD; ``step`` gives
    total and gradients.
    """
    velocity, totals = [np.zeros(p.shape, np.float32) for p in parameters], []
    for _ in range(steps):
        total, gradients = step()
        totals.append(total)
        for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            velocity[i] = momentum * velocity[i] + gradient
            parameter.set_data(
                Tensor(parameter.asnumpy() - rate * (gradient + momentum * velocity[i]))
            )
    return totals

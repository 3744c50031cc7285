"""Derivatives of functions and cells, with MindSpore's interface."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from mindyolo_ext.backend.on_torch.recording import recording


def value_and_grad(
    function: Callable[..., Any],
    grad_position: int | tuple[int, ...] | None = 0,
    weights: Sequence[torch.Tensor] | None = None,
    has_aux: bool = False,
) -> Callable[..., tuple[Any, Any]]:
    """Return a function that computes ``function`` and derivatives of its value.

    Args:
        function: function to differentiate; several outputs or values are summed.
        grad_position: arguments to differentiate by; a tuple returns a tuple.
        weights: parameters to differentiate by as well.
        has_aux: differentiate the first output only.
    """

    def run(*inputs: Any) -> tuple[Any, Any]:
        places = (grad_position,) if isinstance(grad_position, int) else grad_position or ()
        arguments = list(inputs)
        for place in places:
            arguments[place] = inputs[place].detach().clone().requires_grad_()
        wanted = [arguments[place] for place in places] + list(weights or ())
        with recording():
            outputs = function(*arguments)
            values = outputs[:1] if has_aux else outputs
            values = values if isinstance(values, (tuple, list)) else (values,)
            found = torch.autograd.grad(
                torch.stack([value.sum() for value in values]).sum(),
                wanted,
                allow_unused=True,
                materialize_grads=True,
            )
        of_inputs, of_weights = found[: len(places)], found[len(places) :]
        if isinstance(grad_position, int):
            of_inputs = of_inputs[0]
        if grad_position is None:
            return _detached(outputs), of_weights
        return _detached(outputs), of_inputs if weights is None else (of_inputs, of_weights)

    return run


def grad(
    function: Callable[..., Any],
    grad_position: int | tuple[int, ...] | None = 0,
    weights: Sequence[torch.Tensor] | None = None,
    has_aux: bool = False,
) -> Callable[..., Any]:
    """As ``value_and_grad``, without the value."""
    both = value_and_grad(function, grad_position, weights, has_aux)
    return lambda *inputs: both(*inputs)[1]


def _detached(outputs: Any) -> Any:
    """Detach the outputs."""
    if isinstance(outputs, (tuple, list)):
        return tuple(_detached(output) for output in outputs)
    return outputs.detach()

"""One training step: forward, loss, backward, unscale, all-reduce, overflow check, clip, optimizer
and moving average.

The parameters of a group are views of one flat vector, and so are their gradients: a step then
holds a handful of large operators instead of several per parameter. State has the names and shapes
as on MindSpore, so either backend can continue from the other's checkpoints.
"""

from collections.abc import Sequence

import numpy as np
import torch

from mindyolo_ext.backend.on_torch.device import device
from mindyolo_ext.backend.on_torch.distributed import summed
from mindyolo_ext.backend.on_torch.errors import explained
from mindyolo_ext.backend.on_torch.pixels import Pixels
from mindyolo_ext.backend.on_torch.recording import recording
from mindyolo_ext.backend.on_torch.values import Parameter, Tensor
from mindyolo_ext.backend.optimizer import OptimizerOptions
from mindyolo_ext.backend.parameters import ParameterGroup
from mindyolo_ext.backend.processes import world
from mindyolo_ext.contracts import Trainable
from mindyolo_ext.input_spec import InputSpec


def _state(values: torch.Tensor, name: str) -> Parameter:
    """A tensor of the training state, stored in checkpoints."""
    return Parameter(values, name=name, requires_grad=False)


def _views(flat: torch.Tensor, parameters: Sequence[Parameter]) -> list[torch.Tensor]:
    """Return views of ``flat`` in the shapes of the parameters."""
    parts = flat.split([parameter.numel() for parameter in parameters])
    return [part.view(parameter.shape) for part, parameter in zip(parts, parameters, strict=True)]


def _flat(parameters: Sequence[Parameter]) -> torch.Tensor:
    """Copy all values into one float32 vector."""
    return torch.cat([p.detach().reshape(-1).float() for p in parameters])


def _number(value: float, otherwise: float, condition: torch.Tensor) -> torch.Tensor:
    """Select one of two scalars, (), by a condition on the device."""
    chosen = torch.full((), value, device=condition.device)
    return chosen.masked_fill_(~condition, otherwise)


def _without_padding(targets: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Trim padded boxes to the largest number in any image, at least one. Without a graph M can
    vary, and assigners take time and memory for every box.
    """
    if targets.ndim != 3 or mask.shape != targets.shape[:2]:
        return targets, mask
    used = np.flatnonzero(mask.any(0))
    count = int(used[-1]) + 1 if len(used) else 1
    return targets[:, :count], mask[:, :count]


class _Group:
    """Flat weights, gradient, optimizer state and moving average of one group.

    The parameters of the group become views of its weights.
    """

    def __init__(self, group: ParameterGroup, index: int, options: OptimizerOptions):
        self.options = options
        self.parameters = group.parameters
        self.weight_decay = float(group.weight_decay)
        self.weights = _flat(group.parameters)
        self.gradient = torch.zeros_like(self.weights)
        for parameter, values, gradient in zip(
            group.parameters,
            _views(self.weights, group.parameters),
            _views(self.gradient, group.parameters),
            strict=True,
        ):
            parameter.data, parameter.grad = values, gradient
        zeros = torch.zeros_like(self.weights)
        self.momentum = _state(zeros, f"optimizer.{index}.momentum")
        self.state = [self.momentum]
        if options.name != "sgd":
            self.square = _state(zeros, f"optimizer.{index}.square")
            self.count = _state(torch.zeros(1, device=device()), f"optimizer.{index}.count")
            self.state += [self.square, self.count]
        if options.accumulate > 1:
            self.sums = _state(zeros, f"optimizer.{index}.accumulated")
            self.state.append(self.sums)
        if options.ema:
            self.average = _state(self.weights, f"ema_flat.{index}")
            self.state.append(self.average)

    def take_gradient(self, scale: torch.Tensor) -> torch.Tensor:
        """Sum the gradient over ranks and micro batches and remove the loss scale. Return the sum
        of its squares.
        """
        if self.options.loss_scaler != "none":
            self.gradient.div_(scale)
        if world().size > 1:
            summed(self.gradient)
        if self.options.accumulate > 1:
            self.gradient.add_(self.sums)
        return torch.sum(self.gradient * self.gradient)

    def accumulate(self, finite: torch.Tensor) -> None:
        """Keep the gradient for the next micro batch; drop a non-finite one."""
        self.sums.copy_(self.gradient).masked_fill_(~finite, 0.0)

    def update(
        self, rate: float, momentum: float, factor: torch.Tensor | None, finite: torch.Tensor
    ) -> None:
        """Update the weights with the gradient times ``factor``.

        If it is not ``finite`` () the same operators run with numbers that change nothing, so the
        host does not wait for the device.
        """
        gradient = self.gradient
        if factor is not None:
            gradient.mul_(factor)
        decoupled = self.options.name == "adamw"
        if self.weight_decay != 0.0 and not decoupled:
            gradient.add_(self.weights, alpha=self.weight_decay)
        gradient.masked_fill_(~finite, 0.0)
        if self.options.name == "sgd":
            self.momentum.mul_(_number(momentum, 1.0, finite)).add_(gradient)
            if self.options.nesterov:
                gradient.add_(self.momentum, alpha=momentum)
            else:
                gradient.copy_(self.momentum)
            self.weights.sub_(gradient.masked_fill_(~finite, 0.0), alpha=rate)
        else:
            if decoupled:
                self.weights.mul_(_number(1.0 - rate * self.weight_decay, 1.0, finite))
            self._update_adam(rate, momentum, finite)

    def _update_adam(self, rate: float, momentum: float, finite: torch.Tensor) -> None:
        """Update with bias-corrected moments. The correction uses the current beta1 to the power of
        the step, even if beta1 has changed.
        """
        beta1, beta2 = self.options.betas
        if self.options.momentum_is_beta1:
            beta1 = momentum
        steps = self.count.double().reshape(()) + 1.0
        self.count.add_(finite.float())
        self.momentum.mul_(_number(beta1, 1.0, finite)).add_(self.gradient, alpha=1.0 - beta1)
        self.square.mul_(_number(beta2, 1.0, finite))
        self.square.addcmul_(self.gradient, self.gradient, value=1.0 - beta2)
        root = torch.sqrt(1.0 - torch.pow(beta2, steps))
        corrected = self.square.sqrt().div_(root).add_(self.options.eps)
        factor = (-rate / (1.0 - torch.pow(beta1, steps))).masked_fill_(~finite, 0.0)
        self.weights.addcdiv_(self.momentum * factor, corrected)


class Step:
    """PyTorch's part of ``TrainStep``, which describes arguments and shapes."""

    def __init__(
        self,
        trainable: Trainable,
        groups: Sequence[ParameterGroup],
        options: OptimizerOptions,
        *,
        input_spec: InputSpec | None = None,
    ):
        self._pixels = Pixels(input_spec or InputSpec())
        self._trainable = trainable.set_train(True)
        self._options = options
        self._groups = [_Group(group, i, options) for i, group in enumerate(groups)]
        scale = options.loss_scale if options.loss_scaler != "none" else 1.0
        self._scale = _state(torch.tensor([scale], device=device()), "optimizer.loss_scale")
        self._good_steps = _state(torch.zeros(1, device=device()), "optimizer.good_steps")
        self.begin_tally()
        trained = {id(p) for group in groups for p in group.parameters}
        # Of the trained network only, without a teacher and the trainable's own state
        self._statistics = [
            p
            for p in trainable.model.get_parameters()
            if id(p) not in trained and p.dtype == torch.float32
        ]
        self._average: Parameter | None = None
        if options.ema and self._statistics:
            self._average = _state(_flat(self._statistics), "ema_flat.buffers")

    def take(
        self,
        images: np.ndarray,
        targets: np.ndarray,
        mask: np.ndarray,
        rates: np.ndarray,
        controls: np.ndarray,
    ) -> None:
        """Queue one step on the device. Raises: DeviceError if device memory runs out."""
        targets, mask = _without_padding(targets, mask)
        batch = (Tensor(images), Tensor(targets), Tensor(mask))
        rates = np.asarray(rates, np.float32).tolist()
        with explained("training step", "use a smaller train.per_batch_size or input.size"):
            report = self._backward(*batch)
            with torch.no_grad():
                self._tally(self._update(report, rates, np.asarray(controls, np.float32)))

    def begin_tally(self, bad_steps: int = 0) -> None:
        """Reset the sums; ``bad_steps`` consecutive non-finite steps came before."""
        count = float(bad_steps)
        self._sums: torch.Tensor | float = 0.0
        self._streaks = (torch.full((1,), count, device=device()),) * 2

    def _tally(self, report: torch.Tensor) -> None:
        """Add a report to the sums, and count consecutive non-finite steps."""
        self._sums = report + self._sums
        now, longest = self._streaks
        now = (now + 1.0) * (1.0 - report[2:3])
        self._streaks = (now, torch.maximum(longest, now))
        self._reading = torch.cat((report, self._sums, *self._streaks))

    def read_tally(self) -> np.ndarray:
        """Wait for the device and return, concatenated, the last report, the sums, and the current
        and the longest row of non-finite steps.
        """
        return self._reading.asnumpy()

    def _backward(self, images: torch.Tensor, *boxes: torch.Tensor) -> torch.Tensor:
        """Compute the gradients. Return total and terms, (1 + T,)."""
        for group in self._groups:
            group.gradient.zero_()
        with recording():
            total, terms = self._trainable(self._pixels(images), *boxes)
            total = total.float()
            scaled = total * self._scale if self._options.loss_scaler != "none" else total
            scaled.backward()
        return torch.cat((total.detach().reshape(1), terms.detach().float()))

    def _update(
        self, report: torch.Tensor, rates: Sequence[float], controls: np.ndarray
    ) -> torch.Tensor:
        """Update weights, averages and loss scale without waiting. Return the report."""
        options = self._options
        momentum, decay = float(controls[0]), float(controls[2])
        update = bool(controls[1] > 0.5)
        if world().size > 1:
            report = summed(report)
        norm = torch.sqrt(sum(group.take_gradient(self._scale) for group in self._groups))
        finite = torch.isfinite(norm).logical_and(torch.isfinite(report[0]))
        extras = (norm.reshape(1), finite.float().reshape(1), self._scale)
        found = torch.cat((report[:1], *extras, report[1:]))
        factor = None
        if options.clip_norm > 0.0:
            factor = torch.clamp(options.clip_norm / (norm + 1e-6), max=1.0)
        for group, rate in zip(self._groups, rates, strict=True):
            if options.accumulate > 1 and update:
                group.sums.zero_()
            elif options.accumulate > 1:
                group.accumulate(finite)
            if update:
                group.update(rate, momentum, factor, finite)
            if update and options.ema:
                group.average.mul_(decay).add_(group.weights, alpha=1.0 - decay)
        if update and self._average is not None:
            self._average.mul_(decay).add_(_flat(self._statistics), alpha=1.0 - decay)
        if options.loss_scaler == "dynamic":
            self._adapt_scale(finite)
        return found

    def _adapt_scale(self, finite: torch.Tensor) -> None:
        """Halve the loss scale after an overflow, double it after ``scale_window`` good steps."""
        halved = (self._scale * 0.5).clamp_(min=1.0)
        self._scale.copy_(torch.where(finite, self._scale, halved))
        self._good_steps.add_(1.0).mul_(finite.float())
        grows = (self._good_steps >= self._options.scale_window).float()
        self._good_steps.mul_(1.0 - grows)
        self._scale.mul_(1.0 + grows)

    def shared_over_ranks(self) -> list[Parameter]:
        """Return batch-norm statistics and the moving average of everything that is not trained."""
        moving = [
            p for p in self._statistics if p.name.endswith(("moving_mean", "moving_variance"))
        ]
        return [*moving, *([] if self._average is None else [self._average])]

    def drop_accumulated(self) -> None:
        """Drop the gradients of micro batches that no update has used yet."""
        if self._options.accumulate > 1:
            with torch.no_grad():
                for group in self._groups:
                    group.sums.zero_()

    def state_parameters(self) -> list[Parameter]:
        """Return the state outside the network; the trainable's is named ``loss.*``."""
        own = [p for group in self._groups for p in group.state]
        own += [self._scale, self._good_steps]
        own += [] if self._average is None else [self._average]
        return own + [p for p in self._trainable.get_parameters() if p.name.startswith("loss.")]

    def ema_values(self) -> dict[str, np.ndarray]:
        """Return the moving average by parameter name; empty without one."""
        if not self._options.ema:
            return {}
        flats = [(group.parameters, group.average) for group in self._groups]
        if self._average is not None:
            flats.append((self._statistics, self._average))
        return {
            p.name: view.asnumpy()
            for members, flat in flats
            for p, view in zip(members, _views(flat, members), strict=True)
        }

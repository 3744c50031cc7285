"""One training step as ONE compiled graph: forward, loss, backward, unscale, all-reduce, overflow
check, clip, optimizer and moving average.

Parameters of a group are handled as one flat vector: a step then holds a handful of large operators
instead of several per parameter, one all-reduce per group, and an update that is skipped as a whole
when a gradient is not finite. Learning rates are inputs, so the graph contains no schedule.
"""

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, float32, nn, ops, value_and_grad
from mindspore.amp import all_finite

from mindyolo_ext.backend.on_mindspore.errors import explained
from mindyolo_ext.backend.on_mindspore.pixels import Pixels
from mindyolo_ext.backend.optimizer import OptimizerOptions
from mindyolo_ext.backend.parameters import ParameterGroup
from mindyolo_ext.backend.processes import world
from mindyolo_ext.contracts import Trainable
from mindyolo_ext.input_spec import InputSpec

_flatten = ops.MultitypeFuncGraph("flatten")
_write = ops.MultitypeFuncGraph("write")


@_flatten.register("Tensor")
def _flatten_one(x):
    """Flatten any shape -> (n,) float32."""
    return ops.cast(ops.reshape(x, (-1,)), float32)


@_write.register("Tensor", "Tensor", "Number")
def _write_one(flat, parameter, begin):
    """Assign the slice of ``flat`` that starts at ``begin`` to ``parameter``."""
    value = ops.reshape(ops.slice(flat, (begin,), (parameter.size,)), parameter.shape)
    return ops.assign(parameter, ops.cast(value, parameter.dtype))


def _choose(condition: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Select ``new`` if ``condition`` () holds, else ``old``, both (n,).

    With the scalar itself, a compiled ``ops.where`` would permanently take several times the memory
    of the vectors.
    """
    return ops.where(ops.broadcast_to(ops.reshape(condition, (1,)), new.shape), new, old)


def _has_overflow_flag() -> bool:
    """Whether the device may overflow without infinite values: an Ascend 910A returns the largest
    number instead, and sets a flag on the rank.
    """
    return ms.get_context("device_target") == "Ascend"


def _sizes(parameters: Sequence[Parameter]) -> list[int]:
    """Return the size of each parameter."""
    return [int(np.prod(p.shape)) for p in parameters]


def _zeros(length: int, name: str) -> Parameter:
    return Parameter(Tensor(np.zeros(length, np.float32)), name=name, requires_grad=False)


class _GroupUpdate(nn.Cell):
    """Optimizer state and update rule of one group.

    If ``apply`` is False the gradient is zero, so only scalars have to be selected: selecting
    between vectors takes longer than any other part of the update.

    Shape: weights (n,), gradient (n,), rate (), momentum (), apply () bool -> new weights (n,).
    """

    def __init__(self, group: ParameterGroup, index: int, options: OptimizerOptions):
        super().__init__(auto_prefix=False)  # parameters keep their names
        self.adam = options.name != "sgd"
        self.decoupled = options.name == "adamw"
        self.momentum_is_beta1 = options.momentum_is_beta1
        self.nesterov = options.nesterov
        self.weight_decay = float(group.weight_decay)
        self.beta1, self.beta2 = options.betas
        self.eps = options.eps
        length = sum(_sizes(group.parameters))
        self.buffer = _zeros(length, f"optimizer.{index}.momentum")
        if self.adam:
            self.square = _zeros(length, f"optimizer.{index}.square")
            self.count = _zeros(1, f"optimizer.{index}.count")

    def construct(self, weights, gradient, rate, momentum, apply):
        if self.adam:
            beta1 = momentum if self.momentum_is_beta1 else self.beta1
            return self.adam_update(weights, gradient, rate, beta1, apply)
        if self.weight_decay != 0.0:
            gradient = gradient + self._if(apply, self.weight_decay, 0.0) * weights
        buffer = self.buffer * self._if(apply, momentum, 1.0) + gradient
        step = gradient + momentum * buffer if self.nesterov else buffer
        ops.assign(self.buffer, buffer)
        return weights - self._if(apply, rate, 0.0) * step

    def adam_update(self, weights, gradient, rate, beta1, apply):
        """Update with bias-corrected moments, and weight decay as in ``torch.optim.AdamW``
        (subtracted from the weight) or ``Adam`` (in the gradient).

        The correction uses the current ``beta1`` to the power of the step, even if ``beta1`` has
        changed.
        """
        rate = self._if(apply, rate, 0.0)
        kept = weights
        if self.decoupled:
            kept = weights * (1.0 - rate * self.weight_decay)
        elif self.weight_decay != 0.0:
            gradient = gradient + self._if(apply, self.weight_decay, 0.0) * weights
        count = self.count + 1.0
        first = self.buffer * self._if(apply, beta1, 1.0) + (1.0 - beta1) * gradient
        second = self.square * self._if(apply, self.beta2, 1.0)
        second = second + (1.0 - self.beta2) * gradient * gradient
        corrected = ops.sqrt(second) / ops.sqrt(1.0 - ops.pow(self.beta2, count)) + self.eps
        step = first / (1.0 - ops.pow(beta1, count)) / corrected
        ops.assign(self.count, self.count + self._if(apply, 1.0, 0.0))
        ops.assign(self.buffer, first)
        ops.assign(self.square, second)
        return kept - rate * step

    def _if(self, apply, value, other):
        """Select one of two scalars, ()."""
        return ops.where(apply, value, other)


class _ScaledLoss(nn.Cell):
    """``trainable`` with its total, the differentiated value, multiplied by the loss scale."""

    def __init__(self, trainable: Trainable, input_spec: InputSpec):
        super().__init__(auto_prefix=False)  # parameters keep their names
        self.pixels, self.trainable = Pixels(input_spec), trainable

    def construct(self, images, targets, mask, scale):
        total, terms = self.trainable(self.pixels(images), targets, mask)
        total = ops.cast(total, float32)
        return total * scale, total, ops.cast(terms, float32)


class _StepGraph(nn.Cell):
    """The graph of a ``TrainStep``, and the parameters that it keeps between steps.

    Shape: as ``TrainStep``, of tensors.
    """

    def __init__(
        self,
        trainable: Trainable,
        groups: Sequence[ParameterGroup],
        options: OptimizerOptions,
        input_spec: InputSpec,
    ):
        super().__init__(auto_prefix=False)  # parameters keep their names
        self.forward = _ScaledLoss(trainable, input_spec)
        self.group_count = len(groups)
        self.members = tuple(ParameterTuple(g.parameters) for g in groups)
        # where each parameter starts in its group's flat vector
        self.begins = tuple(
            tuple(int(v) for v in np.cumsum([0, *_sizes(g.parameters)])[:-1]) for g in groups
        )
        self.counts = tuple(len(g.parameters) for g in groups)
        self.parameters_flat = ParameterTuple([p for g in groups for p in g.parameters])
        self.update = nn.CellList(
            [_GroupUpdate(g, i, options) for i, g in enumerate(groups)], auto_prefix=False
        )
        self.value_and_gradient = value_and_grad(
            self.forward, None, self.parameters_flat, has_aux=True
        )
        self.accumulate = options.accumulate > 1
        self.clip_norm = float(options.clip_norm)
        self.dynamic = options.loss_scaler == "dynamic"
        self.scaled = options.loss_scaler != "none"
        self.scale_window = float(options.scale_window)
        self.loss_scale = Parameter(
            Tensor([options.loss_scale if self.scaled else 1.0], float32),
            name="optimizer.loss_scale",
            requires_grad=False,
        )
        self.good_steps = _zeros(1, "optimizer.good_steps")
        if self.accumulate:
            self.sums = ParameterTuple(
                [
                    _zeros(sum(_sizes(g.parameters)), f"optimizer.{i}.accumulated")
                    for i, g in enumerate(groups)
                ]
            )
        trained = {id(p) for p in self.parameters_flat}
        # Of the trained network only, without a teacher and the trainable's own state
        self.buffers = ParameterTuple(
            [
                p
                for p in trainable.model.get_parameters()
                if id(p) not in trained and p.dtype == float32
            ]
        )
        self.ema = options.ema
        if self.ema:
            self.ema_groups = ParameterTuple(
                [_initial_ema(g.parameters, f"ema_flat.{i}") for i, g in enumerate(groups)]
            )
            self.has_buffers = len(self.buffers) > 0
            if self.has_buffers:
                self.ema_buffers = _initial_ema(self.buffers, "ema_flat.buffers")
        self.parallel = world().size > 1
        self.ranks = float(world().size)
        self.all_reduce = ops.AllReduce(ops.ReduceOp.SUM) if self.parallel else None
        self.reads_flag = _has_overflow_flag()
        self.report_sums = _zeros(4 + len(trainable.term_names), "tally.sums")
        self.bad_steps = _zeros(2, "tally.bad_steps")  # length of the current and the longest row
        self.hyper_map = ops.HyperMap()

    def construct(
        self, images: Tensor, targets: Tensor, mask: Tensor, rates: Tensor, controls: Tensor
    ) -> Tensor:
        momentum, update, decay = controls[0], controls[1] > 0.5, controls[2]
        # a copy, because _adapt_scale would change a view of the parameter
        scale = ops.sum(self.loss_scale)
        (_, total, terms), gradients = self.value_and_gradient(images, targets, mask, scale)

        report = ops.concat((ops.reshape(total, (1,)), terms))
        if self.reads_flag:
            good = ops.cast(all_finite(gradients), float32)
            report = ops.concat((report, ops.reshape(good, (1,))))
        if self.parallel:
            report = self.all_reduce(report)
        flat, square_norm, start = (), ops.zeros_like(total), 0
        for i in range(self.group_count):
            vector = ops.concat(self.hyper_map(_flatten, gradients[start : start + self.counts[i]]))
            start += self.counts[i]
            if self.scaled:
                vector = vector / scale
            if self.parallel:
                vector = self.all_reduce(vector)
            if self.accumulate:
                vector = self.sums[i] + vector
            square_norm = square_norm + ops.sum(vector * vector)
            flat = flat + (vector,)
        norm = ops.sqrt(square_norm)
        finite = ops.logical_and(ops.isfinite(norm), ops.isfinite(report[0]))
        if self.reads_flag:
            finite = ops.logical_and(finite, report[-1] >= self.ranks)
            report = report[:-1]
        apply = ops.logical_and(update, finite)
        for i in range(self.group_count):
            self._apply_group(i, flat[i], norm, (rates[i], momentum, update, apply, finite, decay))
        if self.ema and self.has_buffers:
            self._average_buffers(report, update, decay)
        if self.dynamic:
            self._adapt_scale(finite)
        extras = ops.stack((norm, ops.cast(finite, float32), scale))
        return self._tally(ops.concat((report[0:1], extras, report[1:])))

    def _tally(self, report):
        """Add a report to the sums, and count consecutive non-finite steps. Return everything that
        the host reads.
        """
        sums = self.report_sums + report
        now = (self.bad_steps[0:1] + 1.0) * (1.0 - report[2:3])
        streaks = ops.concat((now, ops.maximum(self.bad_steps[1:2], now)))
        ops.assign(self.report_sums, sums)
        ops.assign(self.bad_steps, streaks)
        return ops.concat((report, sums, streaks))

    def _apply_group(self, i, gradient, norm, controls):
        """Clip, update, write back and average group ``i``."""
        rate, momentum, update, apply, finite, decay = controls
        if self.accumulate:
            # Accumulates over micro batches, reset by an update; non-finite gradients are dropped
            keep = ops.logical_and(ops.logical_not(update), finite)
            ops.assign(self.sums[i], _choose(keep, gradient, ops.zeros_like(gradient)))
        gradient = _choose(apply, gradient, ops.zeros_like(gradient))
        if self.clip_norm > 0.0:
            factor = ops.minimum(self.clip_norm / (norm + 1e-6), ops.ones_like(norm))
            gradient = gradient * ops.where(apply, factor, ops.zeros_like(norm))
        weights = ops.concat(self.hyper_map(_flatten, self.members[i]))
        weights = self.update[i](weights, gradient, rate, momentum, apply)
        self.hyper_map(ops.partial(_write, weights), self.members[i], self.begins[i])
        if self.ema:
            decay = ops.where(update, decay, ops.ones_like(decay))
            ops.assign(self.ema_groups[i], self.ema_groups[i] * decay + weights * (1.0 - decay))

    def _average_buffers(self, report, update, decay):
        """Average the statistics after the forward pass has updated them."""
        values = ops.depend(ops.concat(self.hyper_map(_flatten, self.buffers)), report)
        average = self.ema_buffers * decay + values * (1.0 - decay)
        ops.assign(self.ema_buffers, _choose(update, average, self.ema_buffers))

    def _adapt_scale(self, finite):
        """Halve the loss scale after an overflow, double it after ``scale_window`` good steps."""
        good = ops.where(finite, self.good_steps + 1.0, ops.zeros_like(self.good_steps))
        grow = good >= self.scale_window
        scale = ops.where(
            finite,
            self.loss_scale,
            ops.maximum(self.loss_scale * 0.5, ops.ones_like(self.loss_scale)),
        )
        ops.assign(self.loss_scale, ops.where(grow, scale * 2.0, scale))
        ops.assign(self.good_steps, ops.where(grow, ops.zeros_like(good), good))


class Step:
    """MindSpore's part of ``TrainStep``, which describes arguments and shapes."""

    def __init__(
        self,
        trainable: Trainable,
        groups: Sequence[ParameterGroup],
        options: OptimizerOptions,
        *,
        input_spec: InputSpec | None = None,
    ):
        spec = input_spec or InputSpec()
        self._graph = _StepGraph(trainable, groups, options, spec).set_train(True)

    def take(
        self,
        images: np.ndarray,
        targets: np.ndarray,
        mask: np.ndarray,
        rates: np.ndarray,
        controls: np.ndarray,
    ) -> None:
        """Queue one step on the device. Raises: DeviceError if device memory runs out."""
        batch = (Tensor(images), Tensor(targets), Tensor(mask))
        numbers = (Tensor(np.asarray(value, np.float32)) for value in (rates, controls))
        with explained("training step", "use a smaller train.per_batch_size or input.size"):
            self._reading = self._graph(*batch, *numbers)

    def begin_tally(self, bad_steps: int = 0) -> None:
        """Reset the sums; ``bad_steps`` consecutive non-finite steps came before."""
        graph = self._graph
        graph.report_sums.set_data(Tensor(np.zeros(graph.report_sums.shape, np.float32)))
        graph.bad_steps.set_data(Tensor(np.full(2, bad_steps, np.float32)))

    def read_tally(self) -> np.ndarray:
        """Wait for the device and return, concatenated, the last report, the sums, and the current
        and the longest row of non-finite steps.
        """
        with explained("training step", "use a smaller train.per_batch_size or input.size"):
            return self._reading.asnumpy()

    def shared_over_ranks(self) -> list[Parameter]:
        """Return batch-norm statistics and the moving average of everything that is not trained."""
        graph = self._graph
        moving = [p for p in graph.buffers if p.name.endswith(("moving_mean", "moving_variance"))]
        return [*moving, *([graph.ema_buffers] if graph.ema and graph.has_buffers else [])]

    def drop_accumulated(self) -> None:
        """Drop the gradients of micro batches that no update has used yet."""
        for sums in self._graph.sums if self._graph.accumulate else ():
            sums.set_data(Tensor(np.zeros(sums.shape, np.float32)))

    def state_parameters(self) -> list[Parameter]:
        """Return the state outside the network; the trainable's is named ``loss.*``."""
        return [
            p
            for p in self._graph.get_parameters()
            if p.name.startswith(("optimizer.", "ema_flat.", "loss."))
        ]

    def ema_values(self) -> dict[str, np.ndarray]:
        """Return the moving average by parameter name; empty without one."""
        graph, values = self._graph, {}
        if not graph.ema:
            return values
        flats = list(zip(graph.members, graph.ema_groups, strict=True))
        if graph.has_buffers:
            flats.append((graph.buffers, graph.ema_buffers))
        for members, flat in flats:
            array, begin = flat.asnumpy(), 0
            for p in members:
                size = int(np.prod(p.shape))
                values[p.name] = array[begin : begin + size].reshape(p.shape).copy()
                begin += size
        return values


def _initial_ema(parameters: Sequence[Parameter], name: str) -> Parameter:
    """Copy the parameters' values into one flat Parameter."""
    values = np.concatenate([p.asnumpy().reshape(-1) for p in parameters]).astype(np.float32)
    return Parameter(Tensor(values), name=name, requires_grad=False)

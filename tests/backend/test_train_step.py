"""The compiled step against NumPy, on a least-squares trainable with a gradient in closed form."""

import importlib
import threading

import numpy as np
import pytest

from mindyolo_ext.backend import Parameter, Tensor, nn, ops
from mindyolo_ext.backend.gradients import grad
from mindyolo_ext.backend.parameters import freeze, parameter_groups
from mindyolo_ext.backend.train_step import OptimizerOptions, TrainStep

pytestmark = pytest.mark.graph(when="all_cases")
RNG = np.random.RandomState(0)
WEIGHT = RNG.standard_normal((3, 4)).astype(np.float32)
BIAS = RNG.standard_normal(3).astype(np.float32)
X = RNG.standard_normal((6, 4)).astype(np.float32)
Y = RNG.standard_normal((6, 3)).astype(np.float32)


class Linear(nn.Cell):
    """A linear map, with a statistic that counts forward passes."""

    def __init__(self):
        super().__init__()
        self.weight = Parameter(Tensor(WEIGHT.copy()), name="weight")
        self.bias = Parameter(Tensor(BIAS.copy()), name="bias")
        self.passes = Parameter(Tensor(np.zeros(1, np.float32)), name="passes", requires_grad=False)

    def construct(self, x):
        ops.assign(self.passes, self.passes + 1.0)
        return ops.matmul(x, ops.transpose(self.weight, (1, 0))) + self.bias


class LeastSquares(nn.Cell):
    """Half the summed squared error of a linear map."""

    term_names = ("half", "sum")

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.model = Linear()

    def construct(self, images, targets, mask):
        error = (self.model(images) - targets) * mask
        total = 0.5 * ops.sum(error * error)
        return total, ops.stack((total * 0.5, ops.sum(error)))


def gradients(weight, bias, x, y):
    error = x @ weight.T + bias - y
    return error.T @ x, error.sum(0), 0.5 * (error**2).sum()


def build(**options):
    trainable = LeastSquares()
    decay = options.pop("weight_decay", 0.01)
    groups = parameter_groups(trainable, "by_kind", decay)
    return trainable.model, TrainStep(trainable, groups, OptimizerOptions(**options))


def run(step, x=X, y=Y, *, rates=(0.01, 0.02), momentum=0.9, update=1.0, decay=0.0):
    mask = np.ones((len(x), 1), np.float32)
    controls = np.array([momentum, update, decay], np.float32)
    return step(x, y, mask, np.array(rates, np.float32), controls)


@pytest.mark.graph
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_equals_the_written_rule(nesterov):
    model, step = build(nesterov=nesterov)
    weights, buffers = [WEIGHT.copy(), BIAS.copy()], [0.0, 0.0]
    for _ in range(4):
        report = run(step)
        *grads, loss = gradients(*weights, X, Y)
        np.testing.assert_allclose(report[0], loss, rtol=1e-5)
        np.testing.assert_allclose(report[4], loss / 2, rtol=1e-5)
        np.testing.assert_allclose(report[1], np.sqrt(sum((g**2).sum() for g in grads)), rtol=1e-5)
        for i, (rate, wd) in enumerate(((0.01, 0.01), (0.02, 0.0))):
            g = grads[i] + wd * weights[i]
            buffers[i] = 0.9 * buffers[i] + g
            weights[i] = weights[i] - rate * (g + 0.9 * buffers[i] if nesterov else buffers[i])
    np.testing.assert_allclose(model.weight.asnumpy(), weights[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.bias.asnumpy(), weights[1], rtol=1e-5, atol=1e-6)
    assert model.passes.asnumpy()[0] == 4, "the forward pass must run once per step"


@pytest.mark.graph
def test_adamw_equals_the_written_rule():
    model, step = build(name="adamw")
    weight, first, second = WEIGHT.copy(), 0.0, 0.0
    bias = BIAS.copy()
    for t in range(1, 4):
        g, gb, _ = gradients(weight, bias, X, Y)
        run(step, rates=(0.01, 0.0))
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
        step_size = (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
        weight = weight * (1 - 0.01 * 0.01) - 0.01 * step_size
    np.testing.assert_allclose(model.weight.asnumpy(), weight, rtol=1e-4, atol=1e-6)


@pytest.mark.graph
def test_gradients_that_overflow_change_nothing_and_are_reported():
    model, step = build(loss_scaler="dynamic", loss_scale=8.0, ema=True)
    bad = X.copy()
    bad[0, 0] = np.inf
    before = step.state()
    report = run(step, x=bad)
    assert report[2] == 0 and report[3] == 8.0
    np.testing.assert_array_equal(model.weight.asnumpy(), WEIGHT)
    np.testing.assert_array_equal(
        step.state()["optimizer.0.momentum"], before["optimizer.0.momentum"]
    )
    assert run(step)[3] == 4.0, "a dynamic loss scale halves after an overflow"


def with_inf(x):
    bad = x.copy()
    bad[0, 0] = np.inf
    return bad


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_an_overflow_after_good_steps_changes_weights_and_moments_nowhere(name):
    """The moving average continues to approach frozen weights, as in the originals."""
    model, step = build(name=name, loss_scaler="dynamic", loss_scale=64.0, ema=True)
    for _ in range(2):
        run(step, decay=0.5)
    before, averages = step.state(), step.ema_values()
    weights = {"weight": model.weight.asnumpy().copy(), "bias": model.bias.asnumpy().copy()}
    report = run(step, x=with_inf(X), decay=0.5)
    assert report[2] == 0 and not np.isfinite(report[1])
    after = step.state()
    assert (before["optimizer.good_steps"], after["optimizer.good_steps"]) == (2, 0)
    assert (before["optimizer.loss_scale"], after["optimizer.loss_scale"]) == (64, 32)
    for key in before:
        if key.startswith("optimizer.") and key[10].isdigit():
            np.testing.assert_array_equal(after[key], before[key], err_msg=key)
    for key, value in weights.items():
        np.testing.assert_array_equal(getattr(model, key).asnumpy(), value)
        wanted = 0.5 * averages[key] + 0.5 * value
        np.testing.assert_allclose(step.ema_values()[key], wanted, rtol=1e-6)


@pytest.mark.graph
def test_the_device_adds_up_reports_and_counts_bad_steps():
    _, step = build(loss_scaler="dynamic", loss_scale=8.0)
    step.begin_tally(1)
    reports, streaks = [], []
    for bad in (True, False, True, True, False, True):
        reports.append(run(step, x=with_inf(X) if bad else X))
        tally = step.tally()
        streaks.append((tally.bad_steps, tally.most_bad_steps))
        np.testing.assert_array_equal(tally.report, reports[-1])
        np.testing.assert_array_equal(tally.sums, np.sum(reports, 0, dtype=np.float32))
    assert streaks == [(2, 2), (0, 2), (1, 2), (2, 2), (0, 2), (1, 2)]
    assert tally.sums[2:4].tolist() == [2, 8 + 4 + 4 + 2 + 1 + 1]
    step.begin_tally()
    good = run(step)
    np.testing.assert_array_equal(step.tally().sums, good)
    assert step.tally().most_bad_steps == 0
    assert not any(name.startswith("tally") for name in step.state())


def test_a_dynamic_scale_grows_after_its_window_and_never_falls_below_one():
    _, step = build(loss_scaler="dynamic", loss_scale=4.0, scale_window=3)
    scales = [run(step)[3] for _ in range(7)]
    assert scales == [4, 4, 4, 8, 8, 8, 16]
    run(step, x=with_inf(X))
    assert step.state()["optimizer.good_steps"] == 0
    scales = [run(step, x=with_inf(X))[3] for _ in range(5)]
    assert scales == [8, 4, 2, 1, 1]


def test_an_overflow_drops_the_micro_batches_before_it():
    large, large_step = build()
    small, small_step = build(accumulate=2, loss_scaler="dynamic", loss_scale=8.0)
    run(small_step, X, Y, update=0.0)
    assert run(small_step, with_inf(X), Y, update=0.0)[2] == 0
    assert not small_step.state()["optimizer.0.accumulated"].any()
    # with another scale, which must not change the sum
    run(large_step)
    run(small_step, X[:3], Y[:3], update=0.0)
    assert run(small_step, X[3:], Y[3:], update=1.0)[3] == 4.0
    np.testing.assert_allclose(small.weight.asnumpy(), large.weight.asnumpy(), rtol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_micro_batches_under_a_growing_scale_equal_the_large_batch(name):
    large, large_step = build(name=name, clip_norm=1.0)
    small, small_step = build(
        name=name, clip_norm=1.0, accumulate=2, loss_scaler="dynamic", scale_window=1
    )
    for _ in range(3):
        wanted = run(large_step)
        run(small_step, X[:3], Y[:3], update=0.0)
        found = run(small_step, X[3:], Y[3:], update=1.0)
        np.testing.assert_allclose(found[1], wanted[1], rtol=1e-5)
    assert found[3] == 1024 * 2**5
    for key in ("weight", "bias"):
        got, expected = (getattr(model, key).asnumpy() for model in (small, large))
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_what_is_frozen_stays_and_is_averaged():
    trainable = LeastSquares()
    freeze(trainable.model, ["weight"])
    groups = parameter_groups(trainable, "by_kind", 0.01)
    step = TrainStep(trainable, groups, OptimizerOptions(ema=True))
    for _ in range(2):
        run(step, rates=(0.02,), decay=0.5)
    np.testing.assert_array_equal(trainable.model.weight.asnumpy(), WEIGHT)
    assert np.abs(trainable.model.bias.asnumpy() - BIAS).max() > 1e-3
    assert set(step.ema_values()) == {"weight", "bias", "passes"}
    np.testing.assert_allclose(step.ema_values()["weight"], WEIGHT, rtol=1e-6)
    assert set(step.state()) >= {"optimizer.0.momentum", "ema_flat.0", "ema_flat.buffers"}
    assert step.state()["optimizer.0.momentum"].shape == BIAS.shape


def test_a_step_sees_what_is_written_into_the_model_between_steps():
    model, step = build()
    other, other_step = build()
    run(step)
    for key, values in (("weight", WEIGHT), ("bias", BIAS)):
        getattr(model, key).set_data(Tensor(values))
    step.load_state(other_step.state())
    np.testing.assert_allclose(run(step), run(other_step), rtol=1e-6)
    np.testing.assert_array_equal(model.weight.asnumpy(), other.weight.asnumpy())


def test_a_new_step_around_the_same_model_goes_on():
    """As at the start of a stage."""
    options = {"name": "adam", "ema": True, "accumulate": 2, "loss_scaler": "dynamic"}
    whole, step = build(**options)
    for i in range(6):
        run(step, update=i % 2, decay=0.5)
    trainable, state = LeastSquares(), {}
    for begin in (0, 3):  # between micro batches
        groups = parameter_groups(trainable, "by_kind", 0.01)
        new = TrainStep(trainable, groups, OptimizerOptions(**options))
        if begin:
            new.load_state(state)
        for i in range(begin, begin + 3):
            run(new, update=i % 2, decay=0.5)
        state = new.state()
    np.testing.assert_allclose(trainable.model.weight.asnumpy(), whole.weight.asnumpy(), rtol=1e-6)
    wanted = step.state()
    assert list(state) == list(wanted)
    for key, value in wanted.items():
        np.testing.assert_allclose(state[key], value, rtol=1e-6, err_msg=key)


@pytest.mark.parametrize("scaler", ["static", "dynamic"])
def test_loss_scale_leaves_the_result_alone(scaler):
    plain, plain_step = build()
    scaled, scaled_step = build(loss_scaler=scaler, loss_scale=256.0)
    for _ in range(2):
        run(plain_step), run(scaled_step)
    np.testing.assert_allclose(scaled.weight.asnumpy(), plain.weight.asnumpy(), rtol=1e-5)


@pytest.mark.graph
def test_micro_batches_add_up_to_the_large_batch():
    large, large_step = build()
    run(large_step)
    small, small_step = build(accumulate=2)
    run(small_step, X[:3], Y[:3], update=0.0)
    np.testing.assert_array_equal(small.weight.asnumpy(), WEIGHT)
    run(small_step, X[3:], Y[3:], update=1.0)
    np.testing.assert_allclose(small.weight.asnumpy(), large.weight.asnumpy(), rtol=1e-5)
    assert not small_step.state()["optimizer.0.accumulated"].any()


def test_clipping_bounds_the_norm():
    model, step = build(clip_norm=1.0, weight_decay=0.0)
    report = run(step, rates=(1.0, 1.0), momentum=0.0)
    changes = model.weight.asnumpy() - WEIGHT, model.bias.asnumpy() - BIAS
    change = np.sqrt(sum((c**2).sum() for c in changes))
    assert report[1] > 1.0
    np.testing.assert_allclose(change, 1.0, rtol=1e-4)


@pytest.mark.graph
def test_moving_average_covers_weights_and_statistics():
    model, step = build(ema=True)
    expected = {"weight": WEIGHT, "passes": np.zeros(1, np.float32)}
    for decay in (0.5, 0.9):
        run(step, decay=decay)
        for name, parameter in (("weight", model.weight), ("passes", model.passes)):
            expected[name] = expected[name] * decay + parameter.asnumpy() * (1 - decay)
    values = step.ema_values()
    assert set(values) == {"weight", "bias", "passes"}
    for name, value in expected.items():
        np.testing.assert_allclose(values[name], value, rtol=1e-6)


def test_state_round_trip_and_its_errors():
    model, step = build(ema=True)
    run(step, decay=0.9)
    state, weight = step.state(), model.weight.asnumpy().copy()
    run(step, decay=0.9)
    after = model.weight.asnumpy().copy()
    other, fresh = build(ema=True)
    other.weight.set_data(Tensor(weight))
    other.bias.set_data(Tensor(step.ema_values()["bias"]))
    fresh.load_state(state)
    run(fresh, decay=0.9, rates=(0.01, 0.02))
    assert other.weight.asnumpy().shape == after.shape
    for name, value in fresh.state().items():
        assert value.shape == state[name].shape
    with pytest.raises(ValueError, match="missing"):
        fresh.load_state({k: v for k, v in state.items() if "momentum" not in k})
    with pytest.raises(ValueError, match="shape"):
        fresh.load_state({**state, "optimizer.0.momentum": np.zeros(3, np.float32)})


def test_a_step_that_has_gone_takes_back_an_older_state():
    """Including the step count of Adam, which corrects its moments."""
    model, step = build(name="adam")
    run(step)
    state = step.state()
    weight, bias = (p.asnumpy().copy() for p in (model.weight, model.bias))
    run(step)
    after = model.weight.asnumpy().copy()
    run(step)
    model.weight.set_data(Tensor(weight))
    model.bias.set_data(Tensor(bias))
    step.load_state(state)
    run(step)
    np.testing.assert_allclose(model.weight.asnumpy(), after, rtol=1e-6)
    assert step.state()["optimizer.0.count"] == 2


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="optimizer must be one of"):
        OptimizerOptions(name="sgdd")
    with pytest.raises(ValueError, match="loss scaler must be one of"):
        OptimizerOptions(loss_scaler="dynamc")
    with pytest.raises(ValueError, match="must be one of"):
        parameter_groups(LeastSquares(), "three")


@pytest.mark.needs_torch  # in MindSpore derivatives are functions of their own
def test_nothing_is_recorded_outside_a_step():
    """This holds in every thread, although PyTorch's own flag is on in a new one."""
    torch, seen = importlib.import_module("torch"), []

    class Watched(LeastSquares):
        def construct(self, *batch):
            seen.append(torch.is_grad_enabled())
            return super().construct(*batch)

    trainable = Watched()
    step = TrainStep(trainable, parameter_groups(trainable), OptimizerOptions())
    batch = [Tensor(values) for values in (X, Y, np.ones((len(X), 1), np.float32))]

    def work():
        with torch.enable_grad():
            outputs = trainable(*batch)
            assert torch.is_grad_enabled() and not any(o.requires_grad for o in outputs)
            run(step, rates=(0.01,))
            outputs = trainable(*batch)
            assert torch.is_grad_enabled() and not any(o.requires_grad for o in outputs)
            grad(lambda x: trainable(x, *batch[1:])[0])(batch[0])
        seen.append("done")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    work()
    assert seen == 2 * [False, True, False, True, "done"]
    assert not np.array_equal(trainable.model.weight.asnumpy(), WEIGHT)


@pytest.mark.needs_mindspore
def test_a_flag_tells_of_overflow_that_the_numbers_hide(monkeypatch):
    """An Ascend 910A returns the largest number where other devices return infinity."""
    from mindyolo_ext.backend.on_mindspore import train_step as on_mindspore

    flags = iter([False, True])
    monkeypatch.setattr(on_mindspore, "_has_overflow_flag", lambda: True)
    monkeypatch.setattr(on_mindspore, "all_finite", lambda _: Tensor(next(flags)))
    model, step = build(loss_scaler="dynamic", loss_scale=8.0)
    report = run(step)
    assert report[2] == 0 and len(report) == 6
    np.testing.assert_array_equal(model.weight.asnumpy(), WEIGHT)
    report = run(step)
    assert report[2] == 1 and report[3] == 4.0
    assert np.any(model.weight.asnumpy() != WEIGHT)


@pytest.mark.graph
@pytest.mark.needs_mindspore
def test_the_flag_is_read_as_on_ascend(monkeypatch):
    from mindyolo_ext.backend.on_mindspore import train_step as on_mindspore

    monkeypatch.setattr(on_mindspore, "_has_overflow_flag", lambda: True)
    model, step = build(loss_scaler="dynamic", loss_scale=8.0)
    plain, plain_step = build(loss_scaler="dynamic", loss_scale=8.0)
    bad = X.copy()
    bad[0, 0] = np.inf
    for x in (X, bad, X):
        np.testing.assert_array_equal(run(step, x=x)[2:4], run(plain_step, x=x)[2:4])
    np.testing.assert_array_equal(model.weight.asnumpy(), plain.weight.asnumpy())

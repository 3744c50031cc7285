"""Memory layout and compilation are options of PyTorch; MindSpore does both on its own."""

import numpy as np
import pytest

from mindyolo_ext.backend import Tensor, nn, tuning
from mindyolo_ext.errors import DeviceError

X = np.random.RandomState(0).normal(0, 1, (2, 3, 4, 6)).astype(np.float32)


@pytest.mark.needs_mindspore
def test_they_change_nothing_on_mindspore():
    cell = nn.SequentialCell(nn.Conv2d(3, 4, 3))
    wanted = cell(Tensor(X)).asnumpy()
    tuning.use_channels_last(cell)
    tuning.compile_cells(cell)
    np.testing.assert_array_equal(cell(Tensor(X)).asnumpy(), wanted)


@pytest.mark.needs_torch
def test_channels_last_is_refused_on_a_cpu():
    with pytest.raises(DeviceError, match="channels_last: .*leave it out, or use --device_target"):
        tuning.use_channels_last(nn.Conv2d(3, 4, 1))


@pytest.mark.needs_torch
def test_channels_last_changes_the_layout_alone(monkeypatch):
    import torch

    from mindyolo_ext.backend.on_torch import tuning as on_torch

    cell = nn.SequentialCell(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU())
    wanted = cell(Tensor(X))
    assert not wanted.is_contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr(on_torch, "device", lambda: torch.device("cuda"))
    tuning.use_channels_last(cell)
    found = cell(Tensor(X))
    assert found.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(found.asnumpy(), wanted.asnumpy(), rtol=1e-5, atol=1e-6)
    assert all(parameter.is_contiguous() for parameter in cell.get_parameters())


@pytest.mark.needs_torch
def test_compiled_cells_compute_the_same(monkeypatch):
    """With a compiler that runs the graph unchanged, because the default one takes minutes."""
    import torch

    cell, graphs = nn.SequentialCell(nn.Conv2d(3, 4, 3), nn.SiLU()), []
    wanted = cell(Tensor(X)).asnumpy()

    def keep(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **options: compiled(self, backend=keep, **options)
    )
    tuning.compile_cells(cell)
    np.testing.assert_array_equal(cell(Tensor(X)).asnumpy(), wanted)
    assert len(graphs) == 1

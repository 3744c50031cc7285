"""How many cores and workers a rank may use."""

import os

import pytest

from mindyolo_ext.config import config_from_mapping
from mindyolo_ext.data.cores import own_cores
from mindyolo_ext.engine.datasets import worker_count


@pytest.mark.parametrize(("cores", "ranks", "own"), [(8, 1, 8), (8, 3, 2), (2, 8, 1)])
def test_ranks_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, ranks: int, own: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert own_cores(ranks) == own
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert own_cores(ranks) == own


@pytest.mark.parametrize(("workers", "wanted"), [("auto", 4), (3, 3), (0, 0)])
def test_workers_of_a_rank(
    monkeypatch: pytest.MonkeyPatch, workers: int | str, wanted: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert worker_count(config_from_mapping({"data": {"workers": workers}}), ranks=2) == wanted

"""How many cores a rank may use."""

import os

import pytest

from mindyolo_ext.data.cores import own_cores


@pytest.mark.parametrize(("cores", "ranks", "own"), [(8, 1, 8), (8, 3, 2), (2, 8, 1)])
def test_ranks_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, ranks: int, own: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert own_cores(ranks) == own
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert own_cores(ranks) == own

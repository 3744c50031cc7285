"""Graph files that the framework itself writes and runs."""

from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.backend import BACKEND, Tensor, nn, ops
from mindyolo_ext.backend.export import FORMATS, load_mindir, write_graph
from mindyolo_ext.checkpoint.inspect import describe
from mindyolo_ext.errors import CheckpointError, MissingFileError

pytestmark = [
    pytest.mark.graph,
    pytest.mark.skipif(BACKEND != "mindspore", reason="MindIR is MindSpore's format"),
]
X = np.arange(6, dtype=np.float32).reshape(2, 3)


class Twice(nn.Cell):
    """Shape: (n, m), (n, m) -> (n, m), (m,)."""

    def construct(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x + 2.0 * y, ops.sum(x, 0)


def test_a_mindir_file_carries_its_description_and_runs(tmp_path: Path):
    path = tmp_path / "twice.mindir"
    assert "mindir" in FORMATS
    write_graph(Twice(), [X, X], path, description={"model": "twice"})
    assert describe(path).metadata["model"] == "twice"
    total, sums = load_mindir(path)(X, -X)
    np.testing.assert_array_equal(total, -X)
    np.testing.assert_array_equal(sums, X.sum(0))


def test_files_that_cannot_be_loaded_are_named(tmp_path: Path):
    path = tmp_path / "bad.mindir"
    with pytest.raises(MissingFileError, match="bad.mindir: no such file"):
        load_mindir(path)
    path.write_bytes(b"no network")
    with pytest.raises(CheckpointError, match="bad.mindir: MindSpore cannot load it as MindIR"):
        load_mindir(path)

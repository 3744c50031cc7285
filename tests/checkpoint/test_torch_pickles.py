"""The names that the reader allows, compared with what PyTorch really pickles.

Needs a Python with PyTorch, named by MINDYOLO_EXT_TORCH_PYTHON, or PyTorch in this one.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.checkpoint.inspect import describe
from mindyolo_ext.checkpoint.reader import read_checkpoint
from mindyolo_ext.errors import CheckpointError

SCRIPT = Path(__file__).parent / "written_by_torch.py"
REFUSED = {
    "torchscript": "is a TorchScript program",
    "fx": "a program traced by torch.fx: save its state_dict",
    "quantized": "quantized weights: take those from before",
    "one_tensor": "holds a single tensor, wanted a state dict",
    "list": "holds a list, wanted a state dict",
    "pickle": "tensors written by pickle.dump: save them with torch.save",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Files that PyTorch wrote."""
    python = os.environ.get("MINDYOLO_EXT_TORCH_PYTHON")
    if not python and importlib.util.find_spec("torch") is not None:
        python = sys.executable
    if not python:
        pytest.skip("MINDYOLO_EXT_TORCH_PYTHON names no Python with PyTorch")
    place = tmp_path_factory.mktemp("torch")
    subprocess.run([python, str(SCRIPT), str(place)], check=True)
    return place


def test_everything_that_weights_come_with_is_read(folder):
    refused = {}
    for path in sorted((folder / "read").iterdir()):
        try:
            assert len(read_checkpoint(path).tensors) >= 1
        except CheckpointError as error:
            refused[path.name] = str(error)
    assert refused == {}
    assert len(list((folder / "read").iterdir())) > 100


def test_all_forms_of_one_network_are_the_same_numbers(folder):
    wanted = read_checkpoint(folder / "read" / "weights_2_zip.pth").tensors
    for name in ("weights", "bare_model", "model"):
        for path in (folder / "read").glob(f"{name}_?_*.pth"):
            found = read_checkpoint(path).tensors
            assert list(found) == list(wanted), path.name
            for key, array in wanted.items():
                np.testing.assert_array_equal(found[key], array)


def test_a_file_without_checksums_says_so(folder):
    path = folder / "read" / "without_checksums.pth"
    if not path.exists():
        pytest.skip("this PyTorch always writes checksums")
    assert "the file has no checksums" in describe(path).warnings[0]


@pytest.mark.parametrize("name", REFUSED)
def test_what_holds_no_plain_weights_is_named(folder, name):
    with pytest.raises(CheckpointError, match=REFUSED[name]):
        read_checkpoint(folder / "refused" / f"{name}.pth")

"""On a CPU, memory of feature maps that PyTorch frees stays with the process and is reused."""

import subprocess
import sys

import pytest

from mindyolo_ext.backend.choice import BACKEND

if BACKEND == "torch":
    from mindyolo_ext.backend.on_torch import memory

pytestmark = pytest.mark.needs_torch

# PyTorch requests aligned blocks, so they do not always fit where the last ones were
PROGRAM = """
import ctypes
import resource
from mindyolo_ext.backend.on_torch.memory import keep_freed_memory
print(keep_freed_memory())
library = ctypes.CDLL(None)
library.malloc.argtypes, library.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    block = library.malloc(64 << 20)
    ctypes.memset(block, 1, 64 << 20)
    library.free(block)
step()
before = faults()
for _ in range(4):
    step()
print(faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_steps_ask_the_system_for_no_pages(monkeypatch):
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX"):
        monkeypatch.delenv(name, raising=False)
    printed = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    ).stdout.split()
    if printed[0] == "False":
        pytest.skip("this C library is not glibc, or the environment has settings of its own")
    assert int(printed[1]) < 4 * (64 << 20) // 4096 // 2  # half of the pages of four maps


@pytest.mark.parametrize(
    "variable", [("MALLOC_ARENA_MAX", "2"), ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1")]
)
def test_settings_of_the_environment_win(variable, monkeypatch):
    monkeypatch.setenv(*variable)
    assert not memory.keep_freed_memory()

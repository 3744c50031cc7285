"""Freed memory stays in the process."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_FAULTS = """
import resource, sys
import numpy as np
from mindyolo_ext.data.heap import keep_freed_memory
if sys.argv[1] == "kept":
    sys.exit(9) if not keep_freed_memory() else None
def fill():
    for _ in range(20):
        np.ones((1280, 1280, 3), np.uint8), np.ones((640, 640, 3), np.uint8)
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(kind: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS, kind], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode == 9:
        pytest.skip("needs glibc")
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_pages_are_fetched_once() -> None:
    assert 10 * faults("kept") < max(faults("given back"), 1000)

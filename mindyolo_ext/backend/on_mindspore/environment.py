"""Settings that MindSpore reads from the process environment when it is imported."""

import os
import sys

from mindyolo_ext.errors import DeviceError

ONEDNN_ISA = "AVX2"


def prepare_environment() -> None:
    """Limit oneDNN's instruction set and MindSpore's C++ log, unless the user has set them.

    MindSpore 2.9 and 2.10 ship a oneDNN that falls back to its reference convolution for kernels
    larger than 1x1 on AVX-512 machines (about 80 times slower); capped at AVX2 it uses its fast
    kernels. ``mindyolo-ext doctor`` prints the value in force.

    Raises: DeviceError if MindSpore was imported earlier without the cap.
    """
    if "mindspore" in sys.modules and "ONEDNN_MAX_CPU_ISA" not in os.environ:
        raise DeviceError(
            "mindyolo_ext.backend: import mindyolo_ext.backend before mindspore, or set "
            f"ONEDNN_MAX_CPU_ISA={ONEDNN_ISA} in the environment"
        )
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", ONEDNN_ISA)
    os.environ.setdefault("GLOG_v", "3")


def settings() -> list[tuple[str, str]]:
    """Return names and values of the variables in force, with advice on unusual values."""
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA", "not set")
    advice = "" if isa == ONEDNN_ISA else f" (recommended: {ONEDNN_ISA})"
    return [("ONEDNN_MAX_CPU_ISA", f"{isa}{advice}")]

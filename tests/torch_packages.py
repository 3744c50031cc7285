"""Print what the PyTorch backend needs where MindSpore has no wheels, one requirement per line.

Used by `make test-torch`, which runs without MindSpore, and with NumPy 2, on any machine. Arguments
name the extras to include; without any, these are `EXTRAS`.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import requires

from packaging.requirements import Requirement

EXTRAS = (
    "",
    "dev",
    "serve",
    "supervision",
    "video",
    "onnx",
    "openvino",
    "ncnn",
    "albumentations",
    "torch",
)
WITHOUT_MINDSPORE = {"python_version": "3.13"}


def requirements(environment: Mapping[str, str], extras: Iterable[str]) -> Iterator[Requirement]:
    """What pip would install, without markers.

    Args:
        environment: values of markers that are to differ from this machine's.
        extras: "" for what is always needed, and names of extras.
    """
    for extra in extras:
        for requirement in map(Requirement, requires("mindyolo_ext") or ()):
            marker = requirement.marker
            is_plain = marker is None or "extra" not in str(marker)
            if is_plain == bool(extra):
                continue
            if marker is None or marker.evaluate({**environment, "extra": extra}):
                requirement.marker = None
                yield requirement


if __name__ == "__main__":
    wanted = ("", *sys.argv[1:]) if sys.argv[1:] else EXTRAS
    print("\n".join(dict.fromkeys(map(str, requirements(WITHOUT_MINDSPORE, wanted)))))

"""Graph files that the framework writes and runs itself."""

from collections.abc import Sequence

from mindyolo_ext.backend.choice import BACKEND
from mindyolo_ext.errors import DeviceError, UsageError

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.export import FORMATS, load_mindir, write_graph
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.export import FORMATS, load_mindir, write_graph

__all__ = ["DERIVED", "FORMATS", "KNOWN_FORMATS", "check_formats", "load_mindir", "write_graph"]
DERIVED = ("openvino", "ncnn", "ms")  # converted from an ONNX file of either backend
KNOWN_FORMATS = ("onnx", *DERIVED, "mindir", "air")


def check_formats(formats: Sequence[str]) -> None:
    """Check that files of these formats can be written.

    Raises: UsageError for an unknown format; DeviceError for one that another backend writes.
    """
    unknown = [name for name in formats if name not in KNOWN_FORMATS]
    if unknown:
        raise UsageError(f"export: unknown formats {unknown}, known are {', '.join(KNOWN_FORMATS)}")
    absent = [name for name in formats if name not in (*FORMATS, *DERIVED)]
    if absent:
        raise DeviceError(
            f"export: only MindSpore can write {' and '.join(absent)}: `--backend mindspore`; this "
            f"backend writes {', '.join((*FORMATS, *DERIVED))}"
        )

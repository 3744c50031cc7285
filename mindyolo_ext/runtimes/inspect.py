"""Describe the exported files whose metadata ``checkpoint.inspect`` does not read."""

from pathlib import Path

from mindyolo_ext.checkpoint.inspect import FileInfo, add_exported
from mindyolo_ext.checkpoint.reader import file_sha256
from mindyolo_ext.runtimes.file import read_exported, read_texts

FORMATS = {".xml": "OpenVINO", ".param": "ncnn", ".engine": "TensorRT"}  # by suffix


def describe_exported(path: Path) -> FileInfo:
    """Describe a file with a suffix of ``FORMATS`` by its metadata; its network is not loaded.

    Raises: as ``read_exported``.
    """
    read_exported(path)
    info = FileInfo(
        str(path),
        FORMATS[path.suffix.lower()],
        file_sha256(path),
        path.stat().st_size,
        metadata=dict(read_texts(path)),
    )
    add_exported(info)
    return info

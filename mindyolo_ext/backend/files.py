"""The framework's own files as NumPy arrays and text."""

from mindyolo_ext.backend.choice import BACKEND

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.files import (
        read_arrays,
        read_mindir_information,
        write_arrays,
    )

__all__ = ["read_arrays", "read_mindir_information", "write_arrays"]

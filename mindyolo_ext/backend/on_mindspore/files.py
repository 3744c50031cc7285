"""MindSpore's ``.ckpt`` files as NumPy arrays by name."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from mindspore import Tensor, load_checkpoint, save_checkpoint


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """All tensors of a ``.ckpt``. Raises: whatever MindSpore raises for a damaged file."""
    return {
        name: np.array(parameter.asnumpy())
        for name, parameter in load_checkpoint(str(path)).items()
    }


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as a ``.ckpt``; not atomic, ``checkpoint.store`` sees to that."""
    save_checkpoint(
        [{"name": name, "data": Tensor(array)} for name, array in arrays.items()], str(path)
    )


def read_mindir_information(path: str | Path) -> dict[str, str]:
    """The user information inside a MindIR file. Raises: protobuf's DecodeError for another
    file.
    """
    from mindspore.train import mind_ir_pb2

    proto = mind_ir_pb2.ModelProto()
    proto.ParseFromString(Path(path).read_bytes())
    return dict(proto.user_info)

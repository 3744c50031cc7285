"""PyTorch's exceptions as messages for the user."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from mindyolo_ext.errors import DeviceError

_NO_MEMORY = re.compile(
    r"out of memory|not enough memory|can't allocate memory|STATUS_ALLOC_FAILED", re.IGNORECASE
)


def first_line(error: BaseException) -> str:
    """Return the first line of PyTorch's message, without the place where it was raised."""
    line = str(error).strip().split("\n")[0]
    return re.sub(r"^\[.*?\]\s*", "", line)


@contextmanager
def explained(what: str, advice: str) -> Iterator[None]:
    """Turn a failed allocation of device memory in ``what`` into a DeviceError with ``advice``."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, DeviceError) or not _NO_MEMORY.search(str(error)):
            raise
        raise DeviceError(
            f"{what}: not enough device memory; {advice} ({first_line(error)})"
        ) from error

"""MindSpore's exceptions as sentences for whoever runs the program."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from mindyolo_ext.errors import DeviceError

_CALL_STACK = re.compile(r"\n\s*-{4,}")
_NO_MEMORY = re.compile(
    r"memory isn't enough|out of memory|(?:alloc|malloc)\w*\b.*\bfail", re.IGNORECASE
)


def without_call_stack(error: BaseException) -> str:
    """MindSpore's message without the C++ call stack behind it."""
    return _CALL_STACK.split(str(error), maxsplit=1)[0].strip()


@contextmanager
def explained(what: str, advice: str) -> Iterator[None]:
    """Turn a failed allocation of device memory in ``what`` into a DeviceError with ``advice``."""
    try:
        yield
    except RuntimeError as error:
        message = without_call_stack(error)
        if isinstance(error, DeviceError) or not _NO_MEMORY.search(message):
            raise
        raise DeviceError(f"{what}: not enough device memory ({message}); {advice}") from error

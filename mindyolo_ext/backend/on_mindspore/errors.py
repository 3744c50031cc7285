"""MindSpore's exceptions as messages for the user."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from mindyolo_ext.errors import DeviceError

# a title between separators: "----\n- C++ Call Stack: (For framework developers)\n----\n"
_TITLE = re.compile(r"\n*-{8,}\n- (.+)\n-{8,}\n")
_FOR_DEVELOPERS = ("Call Stack", "Traceback", "framework developers")
_NO_MEMORY = re.compile(
    r"memory isn't enough|memory not enough|out of memory|alloc\w*\b.*\bfail", re.IGNORECASE
)


def without_call_stack(error: BaseException) -> str:
    """Return MindSpore's message without separators, titles and sections for its developers."""
    lead, *sections = _TITLE.split(str(error))
    texts = [lead]
    for title, text in zip(sections[::2], sections[1::2], strict=True):
        if not any(word in title for word in _FOR_DEVELOPERS):
            texts.append(text)
    return " ".join(text.strip() for text in texts if text.strip())


@contextmanager
def explained(what: str, advice: str) -> Iterator[None]:
    """Turn a failed allocation of device memory in ``what`` into a DeviceError with ``advice``."""
    try:
        yield
    except RuntimeError as error:
        message = without_call_stack(error)
        if isinstance(error, DeviceError) or not _NO_MEMORY.search(message):
            raise
        raise DeviceError(f"{what}: not enough device memory; {advice} ({message})") from error

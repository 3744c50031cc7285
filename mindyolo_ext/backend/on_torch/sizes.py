"""Files that take images of any size."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from mindyolo_ext.backend.on_torch.recording import is_traced

_VARY = ContextVar("sizes_vary", default=False)


@contextmanager
def sizes_vary() -> Iterator[None]:
    """While an export traces a network in this block, sizes of maps are values of its graph."""
    before = _VARY.set(True)
    try:
        yield
    finally:
        _VARY.reset(before)


def do_sizes_vary() -> bool:
    """Whether a network is being traced for images of any size."""
    return _VARY.get() and is_traced()


def in_any_size(
    computed: Callable[..., Any],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """As ``backend.sizes.in_any_size``."""

    def decorate(constant: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(constant)
        def either(*arguments: Any) -> Any:
            return (computed if do_sizes_vary() else constant)(*arguments)

        return either

    return decorate

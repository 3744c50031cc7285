"""Builders by name; the name of an entry is the name of its function. No framework."""

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Builder = TypeVar("Builder", bound=Callable[..., Any])


class Registry:
    """Functions that build something, entered by a decorator.

    Args:
        what: what an entry is called in messages, for example ``model``.
    """

    def __init__(self, what: str):
        self.what = what
        self._builders: dict[str, Callable[..., Any]] = {}

    def register(self, builder: Builder) -> Builder:
        """``builder``, after entering it under its own name. Raises: ValueError if the name is
        taken.
        """
        if builder.__name__ in self._builders:
            raise ValueError(f"two {self.what} builders are called {builder.__name__!r}")
        self._builders[builder.__name__] = builder
        return builder

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._builders)

    def builder(self, name: str) -> Callable[..., Any]:
        """The builder called ``name``. Raises: ValueError that lists the known names."""
        if name not in self._builders:
            close = difflib.get_close_matches(name, self._builders, 1)
            hint = f", did you mean {close[0]}?" if close else ""
            raise ValueError(
                f"unknown {self.what} {name!r}{hint}; known are {', '.join(self.names())}"
            )
        return self._builders[name]

    def keywords(self, name: str) -> list[str]:
        """The keywords that the builder ``name`` takes. Raises: ValueError for an unknown name."""
        parameters = inspect.signature(self.builder(name)).parameters.values()
        return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]

    def check_keywords(self, name: str, keywords: Iterable[str]) -> None:
        """Raises: ValueError for a keyword that the builder ``name`` does not take, or an
        unknown name.
        """
        known = self.keywords(name)
        for key in keywords:
            if key not in known:
                close = difflib.get_close_matches(key, known, 1)
                hint = f", did you mean {close[0]}?" if close else ""
                raise ValueError(
                    f"{self.what} {name}: unknown keyword {key!r}{hint}; known are "
                    f"{', '.join(known)}"
                )

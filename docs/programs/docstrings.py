"""Griffe extension: brings this project's docstrings into the form that the site's parser reads.

``Raises`` is a sentence here, and one line of ``Args`` may describe several arguments.
"""

import re
from typing import Any

import griffe

_SENTENCE = re.compile(r"^(Raises|Shape|Source):[ \n]*((?:.+\n?)+)", re.M)
_SEVERAL = re.compile(r"^( +)((?:\w+, )+\w+): ((?:.*)(?:\n\1 +.*)*)", re.M)


def readable(text: str) -> str:
    """A docstring with sentences as paragraphs, and an entry per argument."""
    text = _SENTENCE.sub(lambda m: f"**{m[1]}:** {' '.join(m[2].split())}\n", text)
    return _SEVERAL.sub(
        lambda m: "\n".join(f"{m[1]}{name}: {m[3]}" for name in m[2].split(", ")), text
    )


class HouseStyle(griffe.Extension):
    """Rewrites every docstring of a package once it is loaded."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)

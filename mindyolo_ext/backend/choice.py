"""Which framework this process runs on. Only the modules of ``backend`` ask.

``MINDYOLO_EXT_BACKEND=shapes`` in the environment takes the backend that only declares parameters,
for ``checkpoint.outline``.
"""

import os

from mindyolo_ext.errors import UsageError, did_you_mean

VARIABLE = "MINDYOLO_EXT_BACKEND"
BACKENDS = ("mindspore", "shapes")


def chosen(name: str) -> str:
    """``name``, or the usual backend for an empty one. Raises: UsageError for an unknown name."""
    if name and name not in BACKENDS:
        raise UsageError(f"{VARIABLE}={name}: no such backend{did_you_mean(name, BACKENDS)}")
    return name or BACKENDS[0]


BACKEND = chosen(os.environ.get(VARIABLE, ""))

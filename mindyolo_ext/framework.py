"""Select the framework of this process before ``mindyolo_ext.backend`` is imported, which makes the
choice (``backend.choice``). Loads no framework.
"""

import os
import sys

from mindyolo_ext.errors import UsageError

VARIABLE = "MINDYOLO_EXT_BACKEND"
FRAMEWORKS = ("mindspore", "torch")


def choose(name: str | None) -> None:
    """Select the framework of this process and the processes it starts; None leaves it open.

    Raises: UsageError if another one was imported before.
    """
    if name is None:
        return
    loaded = sys.modules.get("mindyolo_ext.backend")
    present = name if loaded is None else loaded.BACKEND
    if present != name:
        raise UsageError(
            f"--backend {name}: this process already runs on {present}; start a new one, or set "
            f"{VARIABLE}={name} before it starts"
        )
    os.environ[VARIABLE] = name


def follow(recipe: str) -> None:
    """Select the backend that a recipe names, unless ``--backend``, the environment or an earlier
    import has selected one. Training checks that it runs on the recipe's backend.
    """
    if not os.environ.get(VARIABLE) and "mindyolo_ext.backend" not in sys.modules:
        choose(recipe or None)

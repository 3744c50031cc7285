"""Determine what a converter must know about a model, without building it with a framework.

The network is built with the backend ``on_shapes`` in a separate process, because a process has
only one backend. If this process has already loaded a backend, or ``on_shapes`` lacks a layer of
the model, this process's backend is used.
"""

import functools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mindyolo_ext.errors import CheckpointError, ConfigError, UsageError
from mindyolo_ext.framework import VARIABLE
from mindyolo_ext.input_spec import InputSpec

logger = logging.getLogger(__name__)
TIMEOUT_SECONDS = 120
_PACKAGE_PARENT = Path(__file__).parents[2]
_KINDS = {
    kind.__name__: kind
    for kind in (TypeError, ValueError, UsageError, CheckpointError, ConfigError)
}


@dataclass(frozen=True)
class Outline:
    """The facts about a model that its checkpoint depends on.

    Args:
        family, num_classes, architecture, input_spec: as in ``contracts.Model``.
        parameters: name -> array of zeros without memory, with the parameter's shape and type, in
            the network's order.
        trainable: names of the parameters that training changes.
        epsilons: batch norm -> its epsilon.
    """

    family: str
    num_classes: int
    architecture: dict[str, Any]
    input_spec: InputSpec
    parameters: dict[str, np.ndarray]
    trainable: frozenset[str]
    epsilons: dict[str, float] = field(default_factory=dict)


def outline(model: str, keywords: Mapping[str, Any]) -> Outline:
    """Determine the outline of ``model``.

    Args:
        model: registry name.
        keywords: builder keywords, including ``num_classes``; plain JSON.

    Raises: ValueError for an unknown model, and whatever the builder raises for its keywords.
    """
    wanted = json.dumps(dict(keywords), sort_keys=True)
    values = {} if "mindyolo_ext.backend" in sys.modules else json.loads(_ask(model, wanted))
    if "lacks" in values:
        logger.info("%s: built with the framework (%s)", model, values["lacks"])
    if "parameters" not in values:
        values = json.loads(json.dumps(_described(model, json.loads(wanted))))
    parameters = {
        name: np.broadcast_to(np.zeros((), dtype), shape)
        for name, shape, dtype, _ in values["parameters"]
    }
    return Outline(
        values["family"],
        values["num_classes"],
        values["architecture"],
        InputSpec(**values["input_spec"]),
        parameters,
        frozenset(name for name, _, _, trained in values["parameters"] if trained),
        values["epsilons"],
    )


@functools.lru_cache(maxsize=32)
def _ask(model: str, keywords: str) -> str:
    """Run ``_described`` in a separate process. Raises: whatever the builder raised there."""
    done = subprocess.run(
        [sys.executable, "-m", "mindyolo_ext.checkpoint.outline", model],
        input=keywords,
        env={**os.environ, VARIABLE: "shapes"},
        cwd=_PACKAGE_PARENT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-6:])
        raise RuntimeError(f"the outline of {model} failed with {done.returncode}:\n{tail}")
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise _KINDS.get(answer["error"], ValueError)(answer["message"])
    return done.stdout


def _described(model: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the network as plain JSON, with the backend of this process."""
    from mindyolo_ext.models.registry import create_model

    cell = create_model(model, **keywords)
    names = [name for name, _ in cell.parameters_and_names()]
    norms = {name.removesuffix(".moving_variance") for name in names} - set(names)
    return {
        "family": cell.family,
        "num_classes": cell.num_classes,
        "architecture": cell.architecture,
        "input_spec": asdict(cell.input_spec),
        "parameters": [
            (name, list(p.shape), p.asnumpy().dtype.name, p.requires_grad)
            for name, p in cell.parameters_and_names()
        ],
        "epsilons": {
            name: float(vars(part)["eps"]) for name, part in cell.cells_and_names() if name in norms
        },
    }


def main() -> None:
    """Write the outline of the named model, with keywords from stdin, to stdout."""
    try:
        answer = _described(sys.argv[1], json.load(sys.stdin))
    except (TypeError, ValueError) as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    except (AttributeError, ImportError) as error:
        answer = {"lacks": str(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()

"""What a converter must know of a model, without building it on a framework.

The network is built on the backend ``on_shapes`` in a process of its own, because a process has one
backend. A process that has loaded a backend already uses that one, and so does a model with layers
that ``on_shapes`` lacks.
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
    """A model as its checkpoint sees it.

    Args:
        family, num_classes, architecture, input_spec: as ``contracts.Model`` has them.
        parameters: name -> array of zeros that takes no memory, of the parameter's shape and type,
            in the network's order.
        trainable: names of the parameters that training changes.
        epsilons: batch norm -> what it adds to the variance.
    """

    family: str
    num_classes: int
    architecture: dict[str, Any]
    input_spec: InputSpec
    parameters: dict[str, np.ndarray]
    trainable: frozenset[str]
    epsilons: dict[str, float] = field(default_factory=dict)


def outline(model: str, keywords: Mapping[str, Any]) -> Outline:
    """The outline of ``model``.

    Args:
        model: registry name.
        keywords: for its builder, ``num_classes`` among them; plain JSON.

    Raises: ValueError for an unknown model; what the builder raises for its keywords.
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
    """``_described`` as JSON, from a process of its own. Raises: what the builder raised there."""
    done = subprocess.run(
        [sys.executable, "-m", "mindyolo_ext.checkpoint.outline", model],
        input=keywords,
        env={**os.environ, "MINDYOLO_EXT_BACKEND": "shapes"},
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
    """The network's facts as plain JSON, from whatever backend this process has."""
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
    """Write the outline of the model that is named, with the keywords on stdin, to stdout."""
    try:
        answer = _described(sys.argv[1], json.load(sys.stdin))
    except (TypeError, ValueError) as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    except (AttributeError, ImportError) as error:
        answer = {"lacks": str(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()

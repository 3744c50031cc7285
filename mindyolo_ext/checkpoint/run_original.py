"""Run an original program for ``verify``: ``PYTHON run_original.py JOB.json``.

This file runs in the user's own Python, which has PyTorch but not necessarily this package, so it
imports nothing from it. The job names the clone, the checkpoint, the images and the file for the
results.
"""

import contextlib
import importlib.util
import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# so that our files shadow no package
sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != HERE]

import numpy as np  # noqa: E402
import torch  # noqa: E402


def main(job_path):
    """Build, load strictly, run, and store ``output/<name>`` and ``layer/<module>#<call>``
    arrays.
    """
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    hook = load_hook(Path(job["hook"]))
    os.chdir(job["repo"])
    sys.path.insert(0, job["repo"])
    torch.set_num_threads(job["threads"])
    model = hook.build(job)
    if hasattr(hook, "load"):  # for files that are not a plain state dict
        hook.load(model, job)
    else:
        with _numpy_numbers():
            state = torch.load(job["weights"], map_location="cpu", weights_only=True)
        model.load_state_dict(state[job["entry"]] if job["entry"] else state, strict=True)
    model.eval()
    layers = {}
    for name, module in model.named_modules():
        if name:
            module.register_forward_hook(_keeper(name, layers))
    with torch.no_grad():
        outputs = hook.outputs(model(torch.from_numpy(np.load(job["images"]))))
    arrays = {f"output/{name}": value.numpy() for name, value in outputs.items()}
    arrays.update(
        {
            f"layer/{name}#{index}": value
            for name, values in layers.items()
            for index, value in enumerate(values)
        }
    )
    np.savez(job["results"], **arrays)


def _numpy_numbers():
    """Allow torch to read NumPy numbers and arrays, such as the best score, that checkpoints hold
    besides tensors.
    """
    if not hasattr(torch.serialization, "safe_globals"):  # an older torch refuses such files
        return contextlib.nullcontext()
    make = np.float64(0).__reduce__()[0]
    array = np.zeros(1).__reduce__()[0]
    return torch.serialization.safe_globals(
        [
            (make, "numpy.core.multiarray.scalar"),
            (make, "numpy._core.multiarray.scalar"),
            (array, "numpy.core.multiarray._reconstruct"),
            (array, "numpy._core.multiarray._reconstruct"),
            np.ndarray,
            np.dtype,
            type(np.dtype(np.float64)),
            type(np.dtype(np.float32)),
            type(np.dtype(np.int64)),
        ]
    )


def load_hook(path):
    """Load the family's ``original.py``, a module that builds the network; it may use
    ``stand_ins``.
    """
    sys.modules["stand_ins"] = _loaded("stand_ins", HERE / "stand_ins.py")
    return _loaded(f"original_{path.parent.name}", path)


def _loaded(name, path):
    """Load the file ``path`` as a module."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _keeper(name, layers):
    """Create a forward hook that keeps a copy of the module's output if it is one tensor."""

    def keep(_module, _arguments, output):
        if isinstance(output, torch.Tensor):
            layers.setdefault(name, []).append(output.detach().clone().float().numpy())

    return keep


if __name__ == "__main__":
    main(sys.argv[1])

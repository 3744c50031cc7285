"""The tensors that a loss holds, by their shapes: on PyTorch it runs on tensors without data, on
MindSpore its graph is compiled and not run.

    python benchmarks/tensor_sizes.py RECIPE [SETTING=VALUE ...]

prints the largest tensors of the recipe's loss and of its gradient, and on PyTorch their peak
memory. ``MINDYOLO_EXT_BACKEND`` chooses the backend.
"""

import math
import os
import re
import sys
import tempfile
import weakref
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mindyolo_ext.backend import BACKEND, Tensor, nn
from mindyolo_ext.contracts import Trainable

BYTES = {"float32": 4, "int32": 4, "int64": 8, "bool": 1, "float16": 2, "bfloat16": 2, "float64": 8}
MOST_BOXES = 160  # if a recipe leaves M to the augmentations; their usual limit
# "%12(name) = PrimFunc_Mul(%1, %2) ...", and in the next line "(<Tensor[Float32], (2)>) -> (...)"
_NODE = re.compile(
    r"^ +%\d+\([^)\n]*\) = (?:\w+::)?(?:PrimFunc_)?(\w+)\(.*\n +: (?:\(.*\)) -> (\(.*\))$",
    re.MULTILINE,
)
_TENSOR = re.compile(r"Tensor\[(\w+)\], \(([\d, ]*)\)")
# Operators that return a view of their input or group tensors
_VIEWS = ("Reshape", "TupleGetItem", "MakeTuple", "Depend", "Load", "ExpandDims", "Squeeze")


@dataclass(frozen=True)
class Held:
    """What a loss holds.

    Args:
        sizes: of each operator's output: shape, type and operator -> count.
        peak: bytes held at once, without heads and targets; None if unknown.
        after_forward: bytes kept for the gradient, or None.
    """

    sizes: Counter[tuple[tuple[int, ...], str, str]]
    peak: int | None = None
    after_forward: int | None = None

    def largest(self) -> list[tuple[int, tuple[int, ...], str, str, int]]:
        """Bytes, shape, type, operator and count, largest first."""
        return sorted(
            (
                (math.prod(shape) * BYTES[kind], shape, kind, operator, count)
                for (shape, kind, operator), count in self.sizes.items()
            ),
            reverse=True,
        )

    def largest_bytes(self) -> int:
        """Size of the largest tensor."""
        return self.largest()[0][0]


def held(trainable: Trainable, size: tuple[int, int], batch: int, boxes: int) -> Held:
    """What ``trainable.loss`` and its gradient with respect to the raw heads hold.

    Args:
        size: height and width of the input, in pixels.
        batch, boxes: B and M.

    MindSpore writes its graphs to ``MS_DEV_SAVE_GRAPHS_PATH``, see ``environment``.
    """
    trainable.set_train(True)
    of_backend = _held_on_torch if BACKEND == "torch" else _held_on_mindspore
    return of_backend(trainable, size, batch, boxes)


def environment(folder: Path) -> dict[str, str]:
    """The environment of a process whose MindSpore writes graphs into ``folder``."""
    return {
        "MS_DEV_SAVE_GRAPHS": "1",
        "MS_DEV_SAVE_GRAPHS_PATH": str(folder),
        "MS_DEV_DUMP_IR_PASSES": "validate",  # a hundred large files, of all passes
    }


def held_by_step(trainable: Trainable, size: tuple[int, int], batch: int, boxes: int) -> Held:
    """``held`` for network and loss together; only on PyTorch."""
    return _held_on_torch(trainable.set_train(True), size, batch, boxes, network=True)


def _held_on_torch(
    trainable: Trainable, size: tuple[int, int], batch: int, boxes: int, *, network: bool = False
) -> Held:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    from mindyolo_ext.backend.on_torch.recording import recording

    class Meter(TorchDispatchMode):
        """Count the memory that operators allocate and free."""

        def __init__(self) -> None:
            super().__init__()
            self.live = self.peak = 0
            self.known: set[int] = set()
            self.sizes: Counter[tuple[tuple[int, ...], str, str]] = Counter()

        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            found = operator(*args, **(kwargs or {}))
            for tensor in tree_leaves(found):
                if isinstance(tensor, torch.Tensor):
                    self.count(tensor, str(operator))
            return found

        def count(self, tensor: torch.Tensor, operator: str) -> None:
            storage = tensor.untyped_storage()
            key, taken = storage._cdata, storage.nbytes()
            if key in self.known:
                return
            self.known.add(key)
            weakref.finalize(storage, self.give_back, key, taken)
            self.live += taken
            self.peak = max(self.peak, self.live)
            kind = str(tensor.dtype).removeprefix("torch.")
            self.sizes[tuple(tensor.shape), kind, operator] += 1

        def give_back(self, key: int, taken: int) -> None:
            self.known.discard(key)
            self.live -= taken

    with FakeTensorMode(allow_non_fake_inputs=True), recording():
        images = torch.empty(batch, 3, *size)
        targets, mask = torch.empty(batch, boxes, 5), torch.empty(batch, boxes)
        heads = ()
        if not network:
            heads = tuple(head.detach().requires_grad_() for head in trainable.model(images))
        with Meter() as meter:
            if network:
                total, _ = trainable(images, targets, mask)
            else:
                total, _ = trainable.loss(heads, targets, mask)
            kept = meter.live
            total.backward()
    return Held(meter.sizes, meter.peak, kept)


def _held_on_mindspore(trainable: Trainable, size: tuple[int, int], batch: int, boxes: int) -> Held:
    import mindspore as ms
    import numpy as np
    from mindspore.common.initializer import Zero

    class Gradient(nn.Cell):
        """The gradient of the loss with respect to the heads, which come first."""

        def __init__(self, count: int) -> None:
            super().__init__(auto_prefix=False)
            self.trainable = trainable
            self.function = ms.value_and_grad(self.value, tuple(range(count)), None, has_aux=True)

        def value(self, *inputs):
            return self.trainable.loss(inputs[:-2], inputs[-2], inputs[-1])

        def construct(self, *inputs):
            return self.function(*inputs)

    coarsest = max(trainable.model.strides) * 2
    small = trainable.model(Tensor(np.zeros((1, 3, coarsest, coarsest), np.float32)))
    shapes = [
        (batch, head.shape[1], *(n * side // coarsest for n, side in zip(head.shape[2:], size)))
        for head in small
    ]
    inputs = [ms.Tensor(shape=shape, dtype=ms.float32, init=Zero()) for shape in shapes]
    inputs += [Tensor(np.zeros(shape, np.float32)) for shape in ((batch, boxes, 5), (batch, boxes))]
    Gradient(len(shapes)).compile(*inputs)
    files = Path(os.environ["MS_DEV_SAVE_GRAPHS_PATH"]).rglob("*_validate_*.ir")
    newest = max(files, key=lambda file: file.stat().st_mtime)
    return Held(sizes_in(newest.read_text(encoding="utf-8")))


def sizes_in(text: str) -> Counter[tuple[tuple[int, ...], str, str]]:
    """Shape, type and operator of the tensors of an IR file."""
    sizes: Counter[tuple[tuple[int, ...], str, str]] = Counter()
    for operator, outputs in _NODE.findall(text):
        if operator not in _VIEWS:
            for kind, shape in _TENSOR.findall(outputs):
                numbers = tuple(int(number) for number in shape.split(",") if number.strip())
                sizes[numbers, kind.lower(), operator] += 1
    return sizes


def of_recipe(path: str, changes: list[str]) -> tuple[Trainable, tuple[int, int], int, int]:
    """Trainable, size, B and M of a recipe with 80 classes."""
    from mindyolo_ext.config import load_config
    from mindyolo_ext.engine.build import new_model, new_trainable

    config = load_config(path, changes)
    model = new_model(config, num_classes=80)
    trainable = new_trainable(model, config.train.loss)
    boxes = config.data.max_boxes or MOST_BOXES
    return trainable, tuple(model.input_spec.size), config.train.per_batch_size, boxes


def main() -> None:
    """Print a recipe's tensors."""
    if BACKEND == "mindspore" and "MS_DEV_SAVE_GRAPHS_PATH" not in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            import subprocess

            command = [sys.executable, *sys.argv]
            sys.exit(subprocess.call(command, env={**os.environ, **environment(Path(folder))}))
    from mindyolo_ext.backend import launch

    launch.start("CPU", seed=0)
    trainable, size, batch, boxes = of_recipe(sys.argv[1], sys.argv[2:])
    found = held(trainable, size, batch, boxes)
    print(f"B {batch}, M {boxes}, {size[0]} x {size[1]}, {BACKEND}")
    if found.peak is not None:
        print(
            f"together {found.peak / 1e6:.0f} MB, for the gradient {found.after_forward / 1e6:.0f}"
        )
    for taken, shape, kind, operator, count in found.largest()[:20]:
        print(f"{taken / 1e6:8.1f} MB  {shape} {kind} {operator} x{count}")


if __name__ == "__main__":
    main()

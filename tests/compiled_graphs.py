"""The primitives of compiled training graphs: what a step computes, backward pass included, before
a backend rewrites it for a device.

    python tests/compiled_graphs.py            rewrites tests/primitives.json
    python tests/compiled_graphs.py CASE       prints the primitives of one graph
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launching import ROOT, environment

STORED = Path(__file__).with_name("primitives.json")
# name: smallest variant and its keywords, loss and its keywords, optimizer
CASES: dict[str, tuple[str, Mapping[str, Any], str, Mapping[str, Any], str]] = {
    "yolo_fastestv2": ("yolo_fastestv2", {}, "yolo_fastestv2_loss", {}, "adamw"),
    "yolox": ("yolox_nano", {}, "yolox_loss", {"l1": True}, "sgd"),
    "gold_yolo, step 1": ("gold_yolo_n", {}, "gold_yolo_loss", {}, "sgd"),
    "gold_yolo, step 2": ("gold_yolo_n", {"form": "distill"}, "gold_yolo_distill_loss", {}, "sgd"),
    "dynamicdet, step 1": ("dy_yolov7_w0125", {}, "dynamicdet_loss", {}, "sgd"),
    "dynamicdet, step 2": ("dy_yolov7_w0125", {}, "dynamicdet_router_loss", {}, "sgd"),
    **{
        f"simple_yolo, {assignment}": (
            "simple_yolo_resnet18",
            {"assignment": assignment, "channel_sparsity": 0.25},
            "simple_yolo_loss",
            {},
            "adam",
        )
        for assignment in ("nearby_grid", "single_grid", "all_grid")
    },
}
CLASSES, SIZE, BATCH, BOXES = 3, 128, 2, 4
# "%12(name) = PrimFunc_Mul(%1, %2) ...", and in the next line "(<Tensor[Float32], (2)>) -> (...)"
_NODE = re.compile(
    r"^ +%\d+\([^)\n]*\) = (?:\w+::)?(?:PrimFunc_)?(\w+)\(.*\n +: (\(.*\)) -> (\(.*\))$",
    re.MULTILINE,
)
_TENSOR = re.compile(r"Tensor\[(\w+)\]")
DYNAMIC = "of unknown shape"


def primitives(text: str) -> dict[str, list[str]]:
    """Types of the tensors that each primitive of an IR file reads and returns.

    They are written as ``Float32, Int32 -> Float32``, with equal neighbors listed once and
    ``DYNAMIC`` after a side that has a tensor whose shape is unknown when the graph is compiled.
    """
    found: dict[str, set[str]] = {}
    for name, inputs, outputs in _NODE.findall(text):
        types = f"{_types(inputs)} -> {_types(outputs)}"
        found.setdefault(name, set()).add(types)
    return {name: sorted(types) for name, types in sorted(found.items())}


def _types(text: str) -> str:
    """The types of the tensors in a list of abstract values."""
    kinds = _TENSOR.findall(text)
    once = ", ".join(k for i, k in enumerate(kinds) if i == 0 or kinds[i - 1] != k)
    return f"{once} {DYNAMIC}" if re.search(r"\(-\d|, -\d", text) else once


def compiled(case: str) -> dict[str, list[str]]:
    """Compile the step of ``case`` in a separate process and return its primitives."""
    with tempfile.TemporaryDirectory() as folder:
        saving = {
            "MS_DEV_SAVE_GRAPHS": "1",
            "MS_DEV_SAVE_GRAPHS_PATH": folder,
            "MS_DEV_DUMP_IR_PASSES": "validate",  # a hundred large files, of all passes
        }
        done = subprocess.run(
            [sys.executable, __file__, case],
            env={**environment(), **saving, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def _compile(case: str) -> dict[str, list[str]]:
    """Return the primitives of ``case``; MindSpore writes its graphs to
    ``MS_DEV_SAVE_GRAPHS_PATH``.
    """
    import numpy as np

    from mindyolo_ext.backend import Tensor, launch, precision
    from mindyolo_ext.backend.parameters import parameter_groups
    from mindyolo_ext.backend.train_step import OptimizerOptions, TrainStep
    from mindyolo_ext.models.registry import create_model, create_trainable

    name, keywords, loss, loss_keywords, optimizer = CASES[case]
    launch.start("CPU", seed=0)
    model = create_model(name, num_classes=CLASSES, **keywords)
    precision.apply(model, "O2")
    if "distill" in loss:
        teacher = create_model(name, num_classes=CLASSES)
        precision.apply(teacher, "O2")
        loss_keywords = {**loss_keywords, "teacher": teacher}
    trainable = create_trainable(loss, model, **loss_keywords)
    groups = parameter_groups(trainable, "by_kind", 5e-4)
    options = OptimizerOptions(
        name=optimizer,
        nesterov=optimizer == "sgd",
        accumulate=2,
        clip_norm=10.0,
        ema=True,
        loss_scaler="dynamic",
    )
    step = TrainStep(trainable, groups, options, input_spec=model.input_spec)
    images = np.zeros((BATCH, SIZE, SIZE, 3), np.uint8)  # as the loader provides them
    shapes = ((BATCH, BOXES, 5), (BATCH, BOXES), (len(groups),), (3,))
    others = (np.zeros(shape, np.float32) for shape in shapes)
    step._graph.compile(*map(Tensor, (images, *others)))
    files = Path(os.environ["MS_DEV_SAVE_GRAPHS_PATH"]).glob("*_validate_*.ir")
    return primitives(max(files, key=lambda file: file.stat().st_size).read_text("utf-8"))


def main(arguments: list[str]) -> None:
    """Print one graph's primitives, or write those of all cases."""
    if arguments:
        sys.stdout.write(json.dumps(_compile(arguments[0])) + "\n")
        return
    stored = {}
    for case in CASES:
        stored[case] = compiled(case)
        sys.stderr.write(f"{case}: {len(stored[case])} primitives\n")
        STORED.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

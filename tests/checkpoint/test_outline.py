"""Networks built without a framework have the same parameters, in the same order."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import DEFAULT_GOLDEN, quick_cases

from mindyolo_ext.backend import Parameter, Tensor, nn
from mindyolo_ext.backend.on_shapes import nn as shapes_nn
from mindyolo_ext.backend.on_shapes.values import Parameter as ShapesParameter
from mindyolo_ext.backend.on_shapes.values import Tensor as ShapesTensor
from mindyolo_ext.checkpoint import outline as module
from mindyolo_ext.checkpoint.outline import outline
from mindyolo_ext.models.registry import families, list_models, variant

ROOT = Path(__file__).parents[2]
NANO = DEFAULT_GOLDEN / "yolo_fastestv2" / "official_format_yolo_fastestv2.pth"
CASES = [(name, {"num_classes": 80}) for name in list_models()] + [
    ("yolo_fastestv2", {"num_classes": 3, "anchors": [[1, 2], [3, 4], [5, 6], [7, 8]]}),
    ("yolox_nano", {"num_classes": 1}),
    ("yolox_darknet53", {"num_classes": 2}),
    ("gold_yolo_n", {"num_classes": 3, "form": "plain"}),
    ("gold_yolo_n", {"num_classes": 3, "form": "fuse_ab"}),
    ("gold_yolo_n", {"num_classes": 3, "form": "distill"}),
    ("dy_yolov7_w0125", {"num_classes": 2, "router": False}),
    ("dy_yolov7_w6", {"num_classes": 1, "router": False}),
]


def simple_yolo_cases() -> list:
    name = next(name for name in list_models() if name.startswith("simple"))
    return [
        (name, {"num_classes": 2, "channel_sparsity": 0.25}),
        (name, {"num_classes": 2, "act": "prelu"}),
    ]


SMALL = {record.smallest for record in families().values()} | {"gold_yolo_n"}
QUICK = [case for case in CASES + simple_yolo_cases() if case[0] in SMALL]


@pytest.mark.parametrize(("model", "keywords"), quick_cases(CASES + simple_yolo_cases(), QUICK))
def test_parameters_are_those_of_the_real_backend(model, keywords):
    """A process has one backend: this one has the framework, the other process has none."""
    real = json.loads(json.dumps(module._described(model, keywords)))
    found = json.loads(module._ask(model, json.dumps(keywords)))
    assert found["parameters"] == real["parameters"]
    assert found == real
    assert len(found["parameters"]) > 100


@pytest.mark.parametrize("model", list_models())
def test_parameters_are_as_many_as_the_variants_say(model):
    found = json.loads(module._ask(model, json.dumps({"num_classes": 80})))["parameters"]
    trained = sum(int(np.prod(shape)) for _, shape, _, trainable in found if trainable)
    assert trained == variant(model).parameters


def test_outline(monkeypatch):
    here = outline("yolox_nano", {"num_classes": 3})
    monkeypatch.delitem(sys.modules, "mindyolo_ext.backend")  # as in a process that has none
    there = outline("yolox_nano", {"num_classes": 3})
    assert list(here.parameters) == list(there.parameters)
    for name, array in there.parameters.items():
        assert (array.shape, array.dtype) == (
            here.parameters[name].shape,
            here.parameters[name].dtype,
        )
        assert array.strides == (0,) * array.ndim  # takes no memory
    assert here.trainable == there.trainable
    assert not any("moving" in name for name in there.trainable)
    assert (there.family, there.num_classes) == ("yolox", 3)
    assert there.input_spec == here.input_spec
    assert there.architecture == here.architecture


@pytest.mark.parametrize("loaded", [True, False])
def test_errors_of_the_builder_arrive(monkeypatch, loaded):
    if not loaded:
        monkeypatch.delitem(sys.modules, "mindyolo_ext.backend")
    with pytest.raises(ValueError, match="unknown model 'yolox_q'.*did you mean"):
        outline("yolox_q", {})
    with pytest.raises(ValueError, match="model yolox_nano: unknown keyword 'width'"):
        outline("yolox_nano", {"width": 3})
    with pytest.raises(ValueError, match="form"):
        outline("gold_yolo_n", {"form": "x"})


def test_a_layer_that_the_shapes_lack(monkeypatch):
    """The framework then builds the network."""
    wanted = outline("yolox_nano", {"num_classes": 3})
    monkeypatch.delitem(sys.modules, "mindyolo_ext.backend")
    monkeypatch.setattr(module, "_ask", lambda *_: '{"lacks": "no attribute GroupNorm"}')
    found = outline("yolox_nano", {"num_classes": 3})
    assert list(found.parameters) == list(wanted.parameters)
    program = (
        "import sys\n"
        "from mindyolo_ext.backend.on_shapes import nn\n"
        "del nn.Dense, nn.SiLU\n"
        "from mindyolo_ext.checkpoint.outline import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "yolox_nano"],
        input="{}",
        env={**os.environ, "PYTHONPATH": str(ROOT), "MINDYOLO_EXT_BACKEND": "shapes"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "SiLU" in json.loads(done.stdout)["lacks"]


def test_a_process_that_dies_is_a_fault_of_the_program(monkeypatch):
    monkeypatch.setattr(module.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="the outline of dies failed with 1"):
        module._ask("dies", "{}")


@pytest.mark.parametrize(
    "verb",
    [
        ("convert", str(NANO), "x.ckpt"),
        ("convert", str(NANO), "x.safetensors"),
        ("convert", "ours.ckpt", "x.pth"),
        ("convert", "ours.safetensors", "x.pth"),
        ("info", str(NANO)),
        ("info", "ours.ckpt"),
        ("info", "ours.safetensors"),
        ("check-data", "--config", "mine.yaml", "--split", "train"),
    ],
)
def test_no_framework_is_imported(tmp_path, verb):
    """Each verb runs in a fresh process; ``convert`` is also checked in the process it starts."""
    from mindyolo_ext.checkpoint.convert import convert

    for suffix in (".ckpt", ".safetensors"):
        convert(NANO, tmp_path / f"ours{suffix}")
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    picture = np.zeros((8, 8, 3), np.uint8)
    from mindyolo_ext.data.image_file import write_image

    write_image(tmp_path / "images" / "a.png", picture)
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "mine.yaml").write_text(
        f"data:\n  root: {tmp_path}\n"
        "  train: {format: yolo, images: images, labels: labels, names: [a]}\n"
    )
    blocker = tmp_path / "site"
    for name in ("mindspore", "torch"):  # an import of one fails in every process
        (blocker / name).mkdir(parents=True)
        (blocker / name / "__init__.py").write_text("raise RuntimeError('a framework')\n")
    program = (
        "import sys\n"
        "from mindyolo_ext.cli import main\n"
        "status = main(sys.argv[1:])\n"
        "assert not {'mindspore', 'torch', 'mindyolo_ext.backend'} & set(sys.modules)\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *verb],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{blocker}:{ROOT}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# ---- cells ---------------------------------------------------------------------------------------


def tree(cells, parameter, tensor):
    """A cell with shared cells, tied parameters and lists."""

    class Inner(cells.Cell):
        def __init__(self):
            super().__init__()
            self.late = cells.Conv2d(4, 8, (1, 3), group=2, has_bias=True, pad_mode="same")
            self.scale = parameter(tensor(np.ones((1, 3), np.float32)), name="scale")

    class Outer(cells.Cell):
        def __init__(self):
            super().__init__()
            shared = Inner()
            self.first = cells.SequentialCell(cells.ReLU(), cells.BatchNorm2d(3), shared)
            self.own = parameter(tensor(np.ones(2, np.float16)), requires_grad=False)
            self.again = shared
            self.list = cells.CellList([cells.Dense(3, 2), cells.Dense(3, 2, has_bias=False)])
            self.list.append(cells.Conv2d(1, 1, 3, has_bias=False))
            self.empty = cells.SequentialCell([])
            self.tied = self.own
            self.first[1].eps = 0.5

    return Outer()


def test_cells_keep_parameters_as_mindspore_does():
    real = tree(nn, Parameter, Tensor)
    found = tree(shapes_nn, ShapesParameter, ShapesTensor)

    def rows(cell):
        return [
            (name, tuple(p.shape), p.asnumpy().dtype.name, p.requires_grad)
            for name, p in cell.parameters_and_names()
        ]

    assert rows(found) == rows(real)
    assert list(found.name_cells()) == list(real.name_cells())
    assert len(found.trainable_params()) == len(real.trainable_params())
    assert len(list(found.get_parameters())) == len(list(real.get_parameters()))
    assert len(found.first[1:]) == len(real.first[1:]) == 2


def test_what_the_shapes_refuse():
    conv = shapes_nn.Conv2d(4, 8, 1, has_bias=False)
    with pytest.raises(NotImplementedError, match="this backend declares parameters only"):
        conv(ShapesTensor(np.zeros((1, 4, 2, 2))))
    with pytest.raises(ValueError, match="was set to"):
        conv.weight.set_data(ShapesTensor(np.zeros(3)))
    with pytest.raises(ValueError, match="wanted multiples"):
        shapes_nn.Conv2d(4, 8, 1, group=3)
    with pytest.raises(ValueError, match="wanted axes of at least 1"):
        shapes_nn.BatchNorm2d(0)

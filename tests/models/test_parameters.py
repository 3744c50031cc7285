"""Every backend builds the same parameters: names, order, shapes, types, which are trained, and the
initial values for a seed.

``parameters.json`` holds MindSpore's; ``python tests/models/test_parameters.py`` prints it again.
"""

import gc
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers import quick_cases

from mindyolo_ext.backend.launch import set_seed
from mindyolo_ext.models.registry import create_model, families, list_models

STORED = Path(__file__).with_name("parameters.json")
CLASSES = 3
SEED = 5
FORMS = {
    "gold_yolo_n form=fuse_ab": {"form": "fuse_ab"},
    "gold_yolo_n form=distill": {"form": "distill"},
    "simple_yolo_resnet18 channel_sparsity=0.25": {"channel_sparsity": 0.25},
    "dy_yolov7_w0125 router=True": {"router": True},
}
CASES = (*list_models(), *FORMS)
QUICK = {*(record.smallest for record in families().values()), *FORMS}


def facts(case: str) -> dict[str, int | float | str]:
    """Facts about a freshly built network: the number of its parameters, a checksum over everything
    but their values, and sum and norm of the values.
    """
    set_seed(SEED)
    model = create_model(case.split()[0], num_classes=CLASSES, **FORMS.get(case, {}))
    said, total, squares, numbers = [], 0.0, 0.0, 0
    for name, parameter in model.parameters_and_names():
        assert parameter.name == name
        values = parameter.asnumpy()
        said.append((name, values.shape, str(values.dtype), bool(parameter.requires_grad)))
        total += values.sum(dtype=np.float64)
        squares += np.square(values, dtype=np.float64).sum()
        numbers += values.size
    return {
        "parameters": len(said),
        "numbers": numbers,
        "checksum": f"{zlib.crc32(repr(said).encode()):08x}",
        "sum": round(float(total), 4),
        "norm": round(float(np.sqrt(squares)), 4),
    }


@pytest.mark.parametrize("case", quick_cases(CASES, QUICK))
def test_parameters_are_those_of_the_other_backend(case: str) -> None:
    found, wanted = facts(case), json.loads(STORED.read_text())[case]
    gc.collect()
    values = {key: pytest.approx(wanted.pop(key), rel=1e-5, abs=2e-3) for key in ("sum", "norm")}
    assert found == wanted | values


def test_a_seed_gives_the_same_weights_again_and_another_one_others() -> None:
    first = facts("yolo_fastestv2")
    assert facts("yolo_fastestv2") == first
    set_seed(SEED + 1)
    other = create_model("yolo_fastestv2", num_classes=CLASSES)
    again = sum(p.asnumpy().sum(dtype=np.float64) for p in other.get_parameters())
    assert again != pytest.approx(first["sum"], rel=1e-6)


if __name__ == "__main__":
    print(json.dumps({case: facts(case) for case in CASES}, indent=1))

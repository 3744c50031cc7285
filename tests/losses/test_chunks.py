"""The memory of assigners does not grow with the batch."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from launching import ROOT, environment

from mindyolo_ext.backend import BACKEND
from mindyolo_ext.losses.assign.chunks import MOST_PAIRS, chunks
from mindyolo_ext.models.registry import create_model, create_trainable

BATCH, BOXES, SIDE, CLASSES = 32, 160, 640, 80  # of gold_yolo-s.yaml
PREDICTIONS = 3 * (80 * 80 + 40 * 40 + 20 * 20)  # of the anchor branch
LARGEST = BATCH * CLASSES * PREDICTIONS * 4  # the probabilities of the classes
LARGEST_OF_PAIRS = 64 * 2**20


@pytest.mark.parametrize(
    "images, boxes, predictions, most, wanted",
    [
        (32, 160, 25200, MOST_PAIRS, [4] * 8),
        (32, 160, 8400, MOST_PAIRS, [10, 11, 11]),
        (8, 120, 8400, MOST_PAIRS, [8]),
        (3, 10, 10, 100, [1, 1, 1]),
        (3, 10, 10, 99, [1, 1, 1]),  # a single image has more
        (5, 10, 10, 250, [1, 2, 2]),
    ],
)
def test_chunks_are_few_and_even(
    images: int, boxes: int, predictions: int, most: int, wanted: list[int]
) -> None:
    found = chunks(images, boxes, predictions, most)
    assert [end - begin for begin, end in found] == wanted
    assert [begin for begin, _ in found] == [0, *(end for _, end in found[:-1])]
    assert found[-1][1] == images


def pairs(shape: tuple[int, ...]) -> bool:
    """Whether a tensor pairs boxes with predictions."""
    return len(shape) == 3 and shape[1] == BOXES and shape[2] >= PREDICTIONS // 3


@pytest.fixture
def tensor_sizes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("tensor_sizes")


def gold_yolo_loss(assigner: str):
    model = create_model("gold_yolo_n", form="fuse_ab", num_classes=CLASSES)
    return create_trainable("gold_yolo_loss", model, assigner=assigner)


@pytest.mark.needs_torch  # the program of the next test measures the same with MindSpore
@pytest.mark.parametrize("assigner", ["tal", "atss"])
def test_no_tensor_of_gold_yolos_loss_is_large(tensor_sizes, assigner: str) -> None:
    loss = gold_yolo_loss(assigner)
    held = tensor_sizes.held(loss, (SIDE, SIDE), BATCH, BOXES)
    assert held.largest_bytes() == LARGEST
    of_pairs = [row for row in held.largest() if pairs(row[1])]
    assert of_pairs and of_pairs[0][0] <= LARGEST_OF_PAIRS
    assert held.peak < 13 * LARGEST
    loss.anchor_branch.most_pairs = BATCH * MOST_PAIRS  # all images at once
    assert tensor_sizes.held(loss, (SIDE, SIDE), BATCH, BOXES).largest_bytes() > 1.9 * LARGEST


@pytest.mark.needs_mindspore
@pytest.mark.all_cases
def test_no_tensor_of_the_compiled_loss_is_large(tensor_sizes, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, __file__],
        env={**environment(), **tensor_sizes.environment(tmp_path), "PYTHONPATH": _paths()},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    largest, of_pairs = map(int, done.stdout.split()[-2:])
    assert largest == LARGEST
    assert 0 < of_pairs <= LARGEST_OF_PAIRS


def _paths() -> str:
    return os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "benchmarks")))


def main() -> None:
    """Print the size of the largest tensor, and of the largest tensor of pairs."""
    from tensor_sizes import held

    from mindyolo_ext.backend import launch

    assert BACKEND == "mindspore"
    launch.start("CPU", seed=0)
    found = held(gold_yolo_loss("tal"), (SIDE, SIDE), BATCH, BOXES)
    of_pairs = max(row[0] for row in found.largest() if pairs(row[1]))
    sys.stdout.write(f"{found.largest_bytes()} {of_pairs}\n")


if __name__ == "__main__":
    main()

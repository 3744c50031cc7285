"""A run that is killed and resumed equals an uninterrupted one, bit for bit; checkpoints are
complete or absent.
"""

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from launching import ROOT, environment, run

from mindyolo_ext.checkpoint.store import load_checkpoint
from mindyolo_ext.data.shapes import make_shapes_dataset

EPOCHS = 4


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    """A small recipe with everything that has state: momentum, moving average, micro batches,
    dynamic loss scale.
    """
    folder = tmp_path_factory.mktemp("resume")
    make_shapes_dataset(
        folder / "shapes", train_images=12, val_images=4, size=(64, 64), seed=1, progress=False
    )
    split = {"format": "coco", "images": "images/train", "annotations": "annotations/train.json"}
    content = {
        "model": {"name": "yolo_fastestv2"},
        "input": {"size": [64, 64]},
        "data": {
            "root": str(folder / "shapes"),
            "train": split,
            "augment": ["resize", "contrast_brightness", "horizontal_flip"],
            "workers": 2,
        },
        "train": {
            "epochs": EPOCHS,
            "per_batch_size": 2,
            "run_eval": False,
            "ema_decay": 0.9,
            "ema_warmup": 10,
            "optimizer": {"lr": 0.005, "momentum": 0.9, "weight_decay": 5e-4, "accumulate": 2},
            "schedule": {"decay": "cosine", "warmup_epochs": 1},
            "loss_scaler": "dynamic",
        },
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def command(recipe: Path, folder: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        str(ROOT / "train.py"),
        "--config",
        str(recipe),
        "--save_dir",
        str(folder),
        "--compile_cache",
        str(recipe.parent / "cache"),
        *more,
    ]


def losses(folder: Path) -> list[list[str]]:
    with (folder / "results.csv").open(encoding="utf-8") as file:
        return [
            [row["epoch"], row["loss"], row["gradient_norm"], row["lr"]]
            for row in csv.DictReader(file)
        ]


def test_killed_and_resumed_equals_uninterrupted(recipe, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(command(recipe, whole))
    process = subprocess.Popen(
        command(recipe, broken),
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    last = broken / "weights" / "last.ckpt"
    try:
        until = time.monotonic() + 300
        while not last.exists():
            assert process.poll() is None and time.monotonic() < until, "no checkpoint appeared"
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    killed_after = load_checkpoint(last)[1].epoch
    assert killed_after < EPOCHS - 1, "the run was over before it could be killed; make it longer"
    refused = run(command(recipe, broken), check=False)
    assert refused.returncode == 1 and "already holds a run" in refused.stdout
    run(command(recipe, broken, "--resume"))
    expected, expected_meta = load_checkpoint(whole / "weights" / "last.ckpt")
    found, found_meta = load_checkpoint(last)
    assert set(found) == set(expected) and any(n.startswith("state.optimizer.") for n in found)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert found_meta.epoch == expected_meta.epoch == EPOCHS - 1
    assert losses(broken) == losses(whole)
    assert not list((broken / "weights").glob("*tmp*"))
    name = "backbone.first_conv.0.weight"
    assert not np.array_equal(found[f"state.weights.{name}"], found[name]), (
        "weights and moving average must differ"
    )


def test_resume_without_a_run_says_so(recipe, tmp_path):
    done = run(command(recipe, tmp_path / "none", "--resume"), check=False)
    assert done.returncode == 1 and "nothing to continue from" in done.stdout

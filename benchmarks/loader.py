"""Images per second of our loaders and the originals', in turns on the same cores.

    python benchmarks/loader.py --family yolox --original CLONE --original_python PYTHON \\
        --data coco128

``--data`` has ``images/train2017`` and ``labels/train2017``; the originals get a copy, since they
write files beside the labels. Each measurement is a process of its own that is bound to as many
cores as it has workers.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECIPES = {
    "yolox": "yolox/yolox-s.yaml",
    "gold_yolo": "gold_yolo/gold_yolo-s.yaml",
    "dynamicdet": "dynamicdet/dy-yolov7-step1.yaml",
}
BATCH = 8


def ours(family, folder, workers, kind, cache):
    """Our batches, epoch after epoch, as ``train.py`` reads them."""
    from mindyolo_ext.config import load_config
    from mindyolo_ext.data.build import build_dataset
    from mindyolo_ext.data.loader import Loader
    from mindyolo_ext.data.pipeline import build_pipeline
    from mindyolo_ext.input_spec import InputSpec
    from mindyolo_ext.models.registry import load_augmentations

    load_augmentations()
    config = load_config(ROOT / "configs" / RECIPES[family])
    data = {"format": "yolo", "images": "images/train2017", "labels": "labels/train2017"}
    names = [str(number) for number in range(80)]
    dataset = build_dataset({**data, "names": names, "cache": cache}, folder)
    pipeline = build_pipeline(
        config.data.augment, InputSpec(size=(640, 640), resize="letterbox"), dataset
    )
    keywords = {"workers": workers, "worker_kind": kind, "pixels": "uint8", "drop_last": True}
    with Loader(pipeline, batch_size=BATCH, shuffle=True, **keywords) as loader:
        epoch = 0
        while True:
            yield from loader.epoch(epoch)
            epoch += 1


def measure(options):
    """Images per second after the workers have started; runs in a separate process."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.workers])
    if options.side == "original":
        sys.path.insert(0, str(ROOT / "benchmarks"))
        import original_loaders

        found = original_loaders.batches(options.family, options.data, BATCH, options.workers)
    else:
        kind = options.side
        found = ours(options.family, options.data, options.workers, kind, options.cache)
    for _ in range(4 + 2 * options.workers):  # more than are prepared ahead
        next(found)
    begin = time.perf_counter()
    for _ in range(options.batches):
        next(found)
    print(json.dumps(options.batches * BATCH / (time.perf_counter() - begin)), flush=True)
    os._exit(0)  # without waiting for batches that nobody takes


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--family", choices=RECIPES, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--original", help="clone of the original")
    parser.add_argument("--original_python", help="Python with the original's packages")
    parser.add_argument("--original_path", default="", help="PYTHONPATH of the original")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--spare", type=int, default=0, help="further rounds; the quietest count")
    parser.add_argument("--batches", type=int, default=16)
    parser.add_argument("--cache", default="none")
    parser.add_argument("--side", choices=["thread", "process", "original"])
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    if options.side:
        measure(options)
    with tempfile.TemporaryDirectory() as name:
        folder = copied(Path(options.data).resolve(), Path(name))
        sides = ["thread", "process"] + (["original"] if options.original else [])
        counts = [n for n in (1, 2) if n <= len(os.sched_getaffinity(0))]
        cases = [(side, n) for side in sides for n in counts]
        turns = [turn(options, folder, cases) for _ in range(options.rounds + options.spare)]
    kept = sorted(turns, key=lambda found: found[0])[: options.rounds]
    print(f"other programs took {kept[0][0]:.0%} to {kept[-1][0]:.0%} of the machine")
    report(options.family, {case: [rates[case] for _, rates in kept] for case in cases})


def turn(options, folder, cases):
    """The share of the machine that other programs used, and the images per second of each case."""
    from measuring import Meter

    meter = Meter()
    rates = {case: child(options, folder, *case) for case in cases}
    return meter.share(), rates


def child(options, folder, side, workers):
    """Run ``measure`` for one side; returns images per second."""
    is_original = side == "original"
    path = options.original_path if is_original else str(ROOT)
    python = options.original_python if is_original else sys.executable
    command = [python, str(Path(__file__).resolve()), "--family", options.family, "--side", side]
    command += ["--data", str(folder), "--workers", str(workers), "--batches", str(options.batches)]
    command += ["--cache", options.cache]
    done = subprocess.run(
        command,
        cwd=options.original if is_original else ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr[-3000:]}")
    return float(done.stdout.split()[-1])


def copied(data, folder):
    """Copy the data set into ``folder``, and its boxes as a COCO file for YOLOX."""
    for part in ("images", "labels"):
        shutil.copytree(data / part / "train2017", folder / part / "train2017")
    with contextlib.suppress(FileExistsError):
        (folder / "train2017").symlink_to(folder / "images/train2017")
    sys.path.insert(0, str(ROOT))
    from mindyolo_ext.data.build import build_dataset

    names = [str(number) for number in range(80)]
    found = {"format": "yolo", "images": "images/train2017", "labels": "labels/train2017"}
    truth = build_dataset({**found, "names": names}, folder).coco_ground_truth()
    (folder / "annotations").mkdir()
    (folder / "annotations/instances.json").write_text(json.dumps({"info": {}, **truth}))
    return folder


def report(family, rates):
    """A table of medians, and conclusions from them."""
    print(f"{family}, batches of {BATCH} at 640, images per second (median and range)")
    middle = {case: statistics.median(found) for case, found in rates.items()}
    for (side, workers), found in rates.items():
        what = side if side == "original" else f"ours, {side}"
        print(
            f"| {what} | {workers} worker(s) on {workers} core(s) | {middle[side, workers]:.1f} "
            f"({min(found):.1f} .. {max(found):.1f}) |"
        )
    for side in ("thread", "process", "original"):
        if (side, 2) in middle:
            print(f"{side}: 2 workers / 1 worker: {middle[side, 2] / middle[side, 1]:.2f}")
        if ("original", 1) in middle and side != "original":
            for workers in (1, 2):
                if (side, workers) in middle:
                    ratio = middle[side, workers] / middle["original", workers]
                    print(f"{side} / original, {workers} worker(s): {ratio:.2f}")


if __name__ == "__main__":
    main()

"""Trains an original program, unchanged, for ``training_truth.py``, in the user's Python.

``truth_theirs.py FAMILY CLONE JOB.json``: the clone is adapted from outside as
``original_FAMILY.py`` does, its random numbers are seeded, its weights are written every few
epochs, and the loss of every step is noted.
"""

import csv
import json
import os
import random
import runpy
import sys
from pathlib import Path

import numpy as np
import original_yolo_fastestv2
import torch


class Record:
    """Losses and weights of a training that does not know of it.

    Args:
        job: ``folder``, ``every`` (epochs between weights), ``epochs``.
    """

    def __init__(self, job):
        self.folder = Path(job["folder"])
        self.every, self.epochs = job["every"], job["epochs"]
        self.losses, self.network, self.epoch = [], None, 0

    def end_epoch(self):
        """Count an epoch, and write the weights after every ``every``-th and the last one."""
        self.epoch += 1
        if self.epoch % self.every == 0 or self.epoch == self.epochs:
            torch.save(self.network.state_dict(), self.folder / f"epoch_{self.epoch:03d}.pth")

    def save(self, names):
        """Write the losses of all steps."""
        with (self.folder / "losses.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", *names])
            writer.writerows([[step, *values] for step, values in enumerate(self.losses)])


def seed_all(seed):
    """Every source of random numbers that the originals draw from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def watch_network(record, kind):
    """Let ``kind``, a class of networks, note what is built of it."""
    build = kind.__init__

    def noted(network, *arguments, **keywords):
        build(network, *arguments, **keywords)
        record.network = network

    kind.__init__ = noted


def set_workers(workers):
    """Loaders with ``workers`` processes, whatever the program asks for."""
    loader = torch.utils.data.DataLoader

    def made(*arguments, **keywords):
        keywords |= {"num_workers": workers, "pin_memory": False}
        if not workers:
            keywords.pop("persistent_workers", None)
        return loader(*arguments, **keywords)

    torch.utils.data.DataLoader = made


def yolo_fastestv2(record, job):
    """``train.py`` of Yolo-FastestV2 with a ``.data`` file."""
    original_yolo_fastestv2.adapt()
    set_workers(job["workers"])
    import model.detector
    import utils.loss

    watch_network(record, model.detector.Detector)
    compute = utils.loss.compute_loss

    def noted(*arguments):
        found = compute(*arguments)
        record.losses.append([float(value) for value in found])
        return found

    utils.loss.compute_loss = noted
    step = torch.optim.lr_scheduler.MultiStepLR.step
    calls = [0]

    def stepped(scheduler, *arguments):
        calls[0] += 1
        if calls[0] > 1:  # the first one is of the constructor
            record.end_epoch()
        return step(scheduler, *arguments)

    torch.optim.lr_scheduler.MultiStepLR.step = stepped
    os.makedirs("weights", exist_ok=True)
    sys.argv = ["train.py", "--data", job["data"]]
    return "train.py", ("box", "object", "class", "total")


PROGRAMS = {"yolo_fastestv2": yolo_fastestv2}


def main(family, clone, job_path):
    """Run one training."""
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    sys.path.insert(0, clone)
    os.chdir(clone)
    torch.set_num_threads(job["threads"])
    record = Record(job)
    program, names = PROGRAMS[family](record, job)
    seed_all(job["seed"])
    runpy.run_path(program, run_name="__main__")
    record.save(names)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Trains an original program, unchanged, for ``training_truth.py``, in the user's Python.

``truth_theirs.py FAMILY CLONE JOB.json``: the clone is adapted from outside as
``original_FAMILY.py`` does, its random numbers are seeded, its weights are written every few
epochs, and the loss of every step is noted.
"""

import argparse
import contextlib
import csv
import importlib.util
import json
import os
import random
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import original_dynamicdet
import original_simple_yolo
import original_yolo_fastestv2
import torch
from original import builder


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

    def run():
        runpy.run_path("train.py", run_name="__main__")

    return run, ("box", "object", "class", "total")


class HostPrefetcher:
    """YOLOX's prefetcher without a GPU: batches as the loader gives them."""

    def __init__(self, loader):
        self.loader = iter(loader)

    def next(self):
        images, targets, _, _ = next(self.loader)
        return images, targets


def yolox(record, job):
    """YOLOX's ``Trainer`` on the CPU, at one size, with the weights of its moving average."""
    hook = builder("yolox")
    hook.replace_missing(hook.UNUSED)
    sys.modules["torch.utils.tensorboard"] = sys.modules["stand_ins"].StandIn("tensorboard")
    import yolox.core.trainer as module

    module.DataPrefetcher = HostPrefetcher
    module.get_model_info = module.setup_logger = lambda *_, **__: ""
    torch.cuda.set_device = lambda *_: None
    experiment = experiment_of(job)
    arguments = argparse.Namespace(
        fp16=False,
        experiment_name="run",
        ckpt=job["start"],
        resume=False,
        start_epoch=None,
        batch_size=job["batch"],
        cache=None,
        occupy=False,
        logger="tensorboard",
    )
    trainer = module.Trainer(experiment, arguments)
    trainer.device = "cpu"
    update, names = trainer.meter.update, ("total", "iou", "l1", "conf", "cls")

    def noted(**values):
        record.losses.append([float(values[f"{name}_loss"]) for name in names])
        update(**values)

    def after_epoch():
        record.network = trainer.ema_model.ema
        record.end_epoch()

    trainer.meter.update, trainer.after_epoch = noted, after_epoch
    trainer.save_ckpt = lambda *_, **__: None
    return trainer.train, names


def experiment_of(job):
    """The experiment of a file, with the job's settings, one input size and no evaluation."""
    spec = importlib.util.spec_from_file_location("experiment", job["exp"])
    file = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(file)
    # Its own text wants a package that may be missing
    experiment = type("Truth", (file.Exp,), {"__repr__": object.__repr__})()
    for name, value in job["settings"].items():
        setattr(experiment, name, tuple(value) if isinstance(value, list) else value)
    experiment.random_resize = lambda *_: experiment.input_size
    experiment.get_evaluator = lambda **_: None
    return experiment


def simple_yolo(record, job):
    """The simple YOLO's ``YOLOTrainer`` on the CPU, with the weights of its moving average."""
    original_simple_yolo.adapt()
    builder("simple_yolo").keep_from_downloading(importlib.import_module("torchvision.models"))
    stand_in("torchmetrics", "torchmetrics.detection", "torchmetrics.detection.mean_ap", "qudida")
    stand_in("torchvision.ops", "torchvision.transforms")
    torch.cuda.device_count = lambda: 1  # by which the trainer multiplies batch and rate
    set_workers(job["workers"])
    import core.yolo_trainer
    import datasets.voc

    import configs

    names = {name: number for number, name in enumerate(job["names"])}

    @datasets.voc.register_dataset
    class Truth(datasets.voc.VOC):
        def _check_dataset(self):
            self.class_map = names
            super()._check_dataset()

    config = configs.MyConfig()
    vars(config).update(job["settings"], dataset=Truth.__name__.lower())
    config.init_dependent_config()
    core.yolo_trainer.get_det_metrics = torch.nn.Module
    trainer = core.YOLOTrainer(config)
    record.network, train, loss = trainer.ema_model.ema, trainer.train_one_epoch, trainer.loss_fn

    def noted(*arguments):
        total, terms = loss(*arguments)
        record.losses.append([float(value) for value in (total, *terms)])
        return total, terms

    def one_epoch(*arguments):
        train(*arguments)
        record.end_epoch()

    trainer.loss_fn, trainer.train_one_epoch = noted, one_epoch
    return lambda: trainer.run(config), ("total", "conf", "iou", "class")


def gold_yolo(record, job):
    """Gold-YOLO's ``Trainer`` on the CPU, with the weights of its moving average."""
    form = "distill" if job["teacher"] else "fuse_ab"
    settings = {"num_classes": job["num_classes"], "architecture": {"form": form}}
    builder("gold_yolo").build({"model": "gold_yolo_n", **settings})  # makes its imports work
    stand_in("thop", "torchvision")
    sys.modules["torch.utils.tensorboard"] = sys.modules["stand_ins"].StandIn("tensorboard")
    torch.nn.Module.cuda = lambda module, _=None: module
    set_workers(job["workers"])
    import tools.train
    import yolov6.core.engine as engine
    from yolov6.utils.config import Config

    class Truth(engine.Trainer):
        def get_model(self, *arguments):
            network = super().get_model(*arguments)
            network.load_state_dict(torch.load(job["start"], map_location="cpu"), strict=True)
            return network

        def get_teacher_model(self, *arguments):
            teacher = super().get_teacher_model(*arguments)
            teacher.load_state_dict(torch.load(job["teacher"], map_location="cpu"), strict=True)
            return teacher

        def train_before_loop(self):
            super().train_before_loop()
            self.warmup_stepnum = round(job["warmup_epochs"] * self.max_stepnum)  # or 1000
            self.batch_size = 64  # by which it counts the batches of an update

        def update_optimizer(self):
            record.losses.append([float(self.loss_items.sum()), *self.loss_items.tolist()])
            super().update_optimizer()

        def eval_and_save(self):
            record.end_epoch()
            if len(record.losses) != record.epoch * self.max_stepnum:  # it goes on after errors
                raise SystemExit("a step failed, see above")

        def strip_model(self):
            pass

    arguments = tools.train.get_args_parser().parse_args([])
    vars(arguments).update(job["arguments"], rank=-1, local_rank=-1, world_size=1)
    config = Config.fromfile(job["config"])
    config.training_mode = "repvgg"
    config.model.head.update(use_dfl=True, reg_max=16)
    config.solver.lr0 = job["rate"]
    trainer = Truth(arguments, config, torch.device("cpu"))
    record.network = trainer.ema.ema
    terms = ("iou", "dfl", "class", "distill")
    return trainer.train, ("total", *terms[: trainer.loss_num])


class LastEpochError(Exception):
    """Ends a program before its final evaluation."""


def dynamicdet(record, job):
    """``train_step1.py`` or ``train_step2.py`` of DynamicDet, with the weights of its moving
    average.
    """
    second = job["step"] == 2
    hook = dynamicdet_ready(job)
    import utils.general
    import utils.loss
    import utils.plots
    import utils.torch_utils
    import yaml

    for name in ("plot_images", "plot_results", "plot_lr_scheduler"):
        setattr(utils.plots, name, lambda *_, **__: None)
    utils.general.init_seeds = lambda _: seed_all(job["seed"])
    utils.loss.torch = original_dynamicdet.OnDevice(torch.device("cpu"))
    compute = utils.loss.ComputeLossOTADy if second else utils.loss.ComputeLossOTADual
    average = utils.torch_utils.ModelEMA
    call, update = compute.__call__, average.update_attr

    def noted(loss, *arguments):
        total, terms = call(loss, *arguments)
        record.losses.append([float(total), *terms.tolist()[:3]])
        return total, terms

    def after_epoch(ema, *arguments, **keywords):
        update(ema, *arguments, **keywords)
        record.network = ema.ema
        record.end_epoch()
        if record.epoch == record.epochs:
            raise LastEpochError

    compute.__call__, average.update_attr = noted, after_epoch
    own = "hyp.finetune.dynamic.adam.yaml" if second else "hyp.scratch.p5.yaml"
    settings = yaml.safe_load(Path("hyp", own).read_text(encoding="utf-8"))
    files = {
        "cfg": hook.network_config(job["model"], Path("cfg", f"dy-yolov7-step{job['step']}.yaml")),
        "hyp": {**settings, **job["hyper"]},
    }
    arguments = {"weight": shutil.copyfile(job["start"], record.folder / "start.pt")}
    for name, content in files.items():
        arguments[name] = record.folder / f"{name}.yaml"
        arguments[name].write_text(yaml.safe_dump(content), encoding="utf-8")
    arguments |= job["arguments"]
    flags = ("--noautoanchor", "--notest", "--nosave", "--exist-ok", "--device=cpu", "--workers=0")
    named = (f"--{name}={value}" for name, value in arguments.items())
    program = f"train_step{job['step']}.py"
    sys.argv = [program, *flags, *(["--adam"] if second else []), *named]
    names = ("difference", "easy", "hard") if second else ("box", "object", "class")

    def run():
        constants = {} if second else {"max": without_floor()}
        with contextlib.suppress(LastEpochError):
            runpy.run_path(program, constants, run_name="__main__")

    return run, ("total", *names)


def dynamicdet_ready(job):
    """The builder of DynamicDet, after which its programs can be imported."""
    hook = builder("dynamicdet")
    hook.replace_missing(hook.UNUSED)
    stand_in("seaborn", "scipy.signal", "torchvision.ops", "torchvision.utils")
    sys.modules["torch.utils.tensorboard"] = sys.modules["stand_ins"].StandIn("tensorboard")
    np.int = int
    set_workers(job["workers"])
    for cache in Path(job["labels"]).glob("*.cache"):  # which this PyTorch does not read
        cache.unlink()
    return hook


def dynamicdet_thresholds(record, job):
    """``get_dynamic_thres.py`` of DynamicDet for ``job["weights"]``; writes ``thresholds.json``."""
    hook = dynamicdet_ready(job)
    import get_dynamic_thres
    import yaml

    config, weights = record.folder / "cfg.yaml", record.folder / "weights.pt"
    network = hook.network_config(job["model"], Path("cfg", "dy-yolov7-step2.yaml"))
    config.write_text(yaml.safe_dump(network), encoding="utf-8")
    torch.save({"model": torch.load(job["weights"], map_location="cpu")}, weights)
    get_dynamic_thres.opt = argparse.Namespace(device="cpu", task="val", single_cls=False)
    own = job["arguments"]

    def run():
        found = get_dynamic_thres.get_thres(
            own["data"], str(config), str(weights), 1, own["img-size"]
        )
        values = [float(text) for text in found]
        (record.folder / "thresholds.json").write_text(json.dumps(values), encoding="utf-8")

    return run, ()


def without_floor():
    """``max`` for DynamicDet's programs: it leaves out the least number of warm-up steps, and the
    number of batches that an update sums is 1.
    """

    def largest(*values, **keywords):
        if values[1:] == (1000,):
            return values[0]
        return 1 if len(values) == 2 and 1 in values else max(*values, **keywords)

    return largest


def stand_in(*names):
    """Modules in place of packages that are imported, not used, and not installed, after
    ``builder``.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = sys.modules["stand_ins"].StandIn(name)


PROGRAMS = {
    "yolo_fastestv2": yolo_fastestv2,
    "yolox": yolox,
    "simple_yolo": simple_yolo,
    "gold_yolo": gold_yolo,
    "dynamicdet": dynamicdet,
    "dynamicdet_thresholds": dynamicdet_thresholds,
}


def main(family, clone, job_path):
    """Run one training."""
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    sys.path.insert(0, clone)
    os.chdir(clone)
    torch.set_num_threads(job["threads"])
    record = Record(job)
    run, names = PROGRAMS[family](record, job)
    seed_all(job["seed"])
    run()
    record.save(names)


if __name__ == "__main__":
    main(*sys.argv[1:])

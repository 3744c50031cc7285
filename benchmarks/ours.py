"""This project's side of the benchmarks; ``run.py`` starts it and talks to it over a pipe.
``ours.py THREADS``.
"""

import importlib.metadata
import itertools
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from plain_nms import plain_nms
from serving import Tasks, serve

from mindyolo_ext.backend import BACKEND, Tensor, launch, precision, recompute
from mindyolo_ext.backend.compiled import Compiled
from mindyolo_ext.backend.parameters import load_parameters, parameter_groups, parameter_values
from mindyolo_ext.backend.train_step import OptimizerOptions, TrainStep
from mindyolo_ext.checkpoint.convert import convert, export_torch
from mindyolo_ext.checkpoint.store import CheckpointMetadata, save_checkpoint
from mindyolo_ext.config import load_config
from mindyolo_ext.contracts import StepClock, Stepped
from mindyolo_ext.data.loader import Loader
from mindyolo_ext.engine.build import (
    load_model,
    new_model,
    new_trainable,
    split_dataset,
    training_pipeline,
)
from mindyolo_ext.engine.datasets import worker_count
from mindyolo_ext.engine.evaluate import evaluate
from mindyolo_ext.engine.export import example_input, export
from mindyolo_ext.engine.routing import new_predictor
from mindyolo_ext.engine.schedule import ema_decay
from mindyolo_ext.evaluation.nms import NMSOptions, nms


class Ours(Tasks):
    """The jobs that the driver may ask for."""

    def __init__(self, threads: int):
        super().__init__()
        self.threads = threads

    def jobs(self) -> dict:
        """Methods by the name of the job."""
        return {
            "measure": self.measure,
            "about": self.about,
            "make_weights": self.make_weights,
            "convert": self.convert,
            "forward": self.forward,
            "onnx": self.onnx,
            "train_step": self.train_step,
            "routes": self.routes,
            "onnx_routes": self.onnx_routes,
            "most_memory": self.most_memory,
            "evaluate": self.evaluate,
            "evaluation_split": self.evaluation_split,
            "pipeline": self.pipeline,
            "nms": self.nms,
        }

    def about(self) -> dict:
        """Versions, for the report."""
        import onnxruntime

        return {
            {"mindspore": "MindSpore", "torch": "PyTorch"}[BACKEND]: importlib.metadata.version(
                BACKEND
            ),
            "ONNX Runtime": onnxruntime.__version__,
            "Python": platform.python_version(),
            "NumPy": np.__version__,
            "OpenCV": cv2.__version__,
            "ONEDNN_MAX_CPU_ISA": os.environ.get("ONEDNN_MAX_CPU_ISA", "not set"),
        }

    def make_weights(self, folder: str, recipe: str, seed: int = 0) -> dict:
        """Random weights of the recipe's model that keep the scale of activations, as ``.ckpt`` and
        ``.pth``.

        The last norms of Gold-YOLO's attention stay 0, as in a fresh network: with random logits,
        its softmax would be unstable.
        """
        config = load_config(recipe)
        model, rng = new_model(config, num_classes=80), np.random.RandomState(seed)
        values = parameter_values(model)
        kernels = [name for name, value in values.items() if value.ndim == 4]
        for name in kernels:
            shape = values[name].shape
            values[name] = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
            # sides of boxes in cells: a few, as in real networks
            if ".reg_preds" in name and model.family == "gold_yolo":
                values[name] *= 0.1
        values[kernels[0]] /= 255 * model.input_spec.scale  # a white pixel counts 1
        for name in values:
            if name.endswith("beta"):  # otherwise little passes a SiLU
                values[name] = 0.5 * rng.standard_normal(values[name].shape)
            elif (
                name.endswith("gamma") and ".rbr_" in name
            ):  # the branches of a RepVGG block are summed
                values[name] = np.full(values[name].shape, 0.5)
            elif name.endswith("alpha"):  # of a residual
                values[name] = np.full(values[name].shape, 0.1)
        load_parameters(model, values)
        checkpoint, foreign = (
            Path(folder) / f"{Path(recipe).stem}{suffix}" for suffix in (".ckpt", ".pth")
        )
        save_checkpoint(
            checkpoint,
            parameter_values(model),
            CheckpointMetadata(
                model=config.model.name,
                num_classes=model.num_classes,
                input_spec=model.input_spec,
                architecture=dict(model.architecture),
            ),
        )
        export_torch(checkpoint, foreign)
        return {
            "model": config.model.name,
            "architecture": dict(model.architecture),
            "checkpoint": str(checkpoint),
            "foreign": str(foreign),
        }

    def convert(self, source: str, target: str) -> None:
        """A checkpoint of the original as one of ours."""
        convert(source, target)

    def forward(self, task: str, checkpoint: str, images: str, outputs: str, batch: int) -> None:
        """Prepare the deploy form; stores example images and its outputs for the peer."""
        model, _ = load_model(checkpoint)
        deploy = Compiled(model.to_deploy())
        example = example_input(batch, model.input_spec)
        np.save(images, example)
        tensor = Tensor(example)

        def call() -> tuple[np.ndarray, ...]:
            return deploy(tensor)

        np.savez(outputs, *call())
        self.tasks[task] = call

    def onnx(self, task: str, checkpoint: str, images: str, outputs: str) -> None:
        """Prepare the exported deploy form in ONNX Runtime."""
        import onnxruntime

        example = np.load(images)
        path = Path(outputs).with_suffix("")
        report = export(checkpoint, ["onnx"], output=path, batch_size=len(example), raw=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        session = onnxruntime.InferenceSession(
            str(report.files["onnx"]), options, providers=["CPUExecutionProvider"]
        )

        def call() -> list[np.ndarray]:
            return session.run(None, {"images": example})

        np.savez(outputs, *call())
        self.tasks[task] = call

    def routes(self, checkpoint: str, images: str, easy: str, hard: str) -> None:
        """Prepare ``easy`` and ``hard``, the two ways through a routed model's deploy form, as in
        test.py.

        Stores an example image for the others; ``easy`` and ``hard`` are files for boxes and
        scores.
        """
        model, _ = load_model(checkpoint)
        predictor = new_predictor(model)
        example = example_input(1, model.input_spec)
        np.save(images, example)

        def route(threshold: float) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
            def call() -> tuple[np.ndarray, np.ndarray]:
                predictor.dy_thres = threshold
                return predictor(example)

            return call

        for name, threshold, path in (("easy", 0.0, easy), ("hard", 1.0, hard)):
            self.tasks[name] = route(threshold)
            np.savez(path, *self.tasks[name]())

    def onnx_routes(self, checkpoint: str, images: str, easy: str, hard: str) -> None:
        """Prepare ``easy`` and ``hard`` as ``routes`` does, with the exported parts in ONNX
        Runtime.
        """
        import onnxruntime

        path = Path(easy).with_name("parts")
        report = export(checkpoint, ["onnx"], output=path, parts=3)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        sessions = {
            label.split()[1]: onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
            for label, file in report.files.items()
        }
        example = np.load(images)

        def route(part: str) -> Callable[[], list[np.ndarray]]:
            entry, last = sessions["router"], sessions[part]
            given = [value.name for value in entry.get_outputs()]
            wanted = {value.name for value in last.get_inputs()}

            def call() -> list[np.ndarray]:
                known = {
                    "images": example,
                    **dict(zip(given, entry.run(None, {"images": example}))),
                }
                return last.run(None, {name: known[name] for name in wanted})

            return call

        for name, part, file in (("easy", "first", easy), ("hard", "second", hard)):
            self.tasks[name] = route(part)
            np.savez(file, *self.tasks[name]())

    def train_step(
        self,
        task: str,
        recipe: str,
        checkpoint: str,
        batch: str,
        rate: float,
        teacher: str = "",
        half: str = "",
        computes_again: bool = False,
    ) -> dict:
        """Prepare the recipe's training step; ``teacher`` is also a checkpoint, ``half`` the
        half-precision type, if any, and ``computes_again`` the recipe's ``recompute``.

        Returns the total and terms of the first call, and its seconds, including compilation.
        """
        config = load_config(recipe)
        model, _ = load_model(checkpoint)
        optimizer, decay = config.train.optimizer, config.train.ema_decay
        trainable = new_trainable(
            model, config.train.loss, load_model(teacher)[0] if teacher else None
        )
        groups = parameter_groups(trainable, optimizer.groups, optimizer.weight_decay)
        if half:
            precision.apply(model, "O2", half)
        if computes_again:
            recompute.apply(model)
        step = TrainStep(
            trainable,
            groups,
            OptimizerOptions(
                name=optimizer.name,
                nesterov=optimizer.nesterov,
                ema=decay > 0,
                loss_scaler="static" if half == "float16" else "none",
            ),
        )
        arrays = np.load(batch)
        inputs = [arrays[name] for name in ("images", "targets", "mask")]
        rates = np.full(len(groups), rate, np.float32)
        controls = np.array(
            [optimizer.momentum, 1, ema_decay(config.train, 1) if decay > 0 else 0], np.float32
        )

        turns = itertools.count(1)

        def call() -> np.ndarray:
            report = step(*inputs, rates, controls)
            if isinstance(trainable, Stepped):  # the first step is compared and drops no path
                trainable.begin_step(StepClock(next(turns), 0, config.train.epochs))
            return report

        self.tasks[task] = call
        begin = time.perf_counter()
        report = call()
        losses = zip(("total", *trainable.term_names), (report[0], *report[4:]), strict=True)
        return {
            "losses": {name: float(value) for name, value in losses},
            "seconds": time.perf_counter() - begin,
        }

    def evaluate(
        self, task: str, recipe: str, checkpoint: str, changes: list[str]
    ) -> dict[str, float]:
        """Prepare the evaluation of ``test.py``; returns the original's metric of the first
        call.
        """
        config = load_config(recipe, changes)
        model, _ = load_model(checkpoint, config)
        dataset = split_dataset(config, "val")
        predictor = new_predictor(model, fold=config.eval.fold)

        def call() -> dict[str, float]:
            begin = time.perf_counter()
            result = evaluate(
                predictor,
                dataset,
                config.eval,
                workers=worker_count(config, ranks=1),
                worker_kind=config.data.worker_kind,
            )
            self.split = {"total": time.perf_counter() - begin}
            self.split |= {
                name: value * len(dataset) / 1e3 for name, value in result.milliseconds.items()
            }
            return {
                name.removeprefix("own_"): float(v)
                for name, v in result.values().items()
                if "own_" in name
            }

        self.tasks[task] = call
        return call()

    def evaluation_split(self) -> dict[str, float]:
        """Seconds of the last evaluation by phase."""
        return self.split

    def pipeline(self, task: str, recipe: str, changes: list[str]) -> int:
        """Prepare an epoch of the recipe's training loader; returns the images per call."""
        config = load_config(recipe, changes)
        spec = new_model(config, num_classes=80).input_spec
        pipeline = training_pipeline(
            config.data.augment, spec, split_dataset(config, "train"), seed=0
        )
        loader = Loader(
            pipeline,
            batch_size=config.train.per_batch_size,
            shuffle=True,
            drop_last=True,
            workers=worker_count(config, ranks=1),
            worker_kind=config.data.worker_kind,
        )

        def call() -> None:
            for _ in loader.epoch(0):
                pass

        self.tasks[task] = call
        return loader.steps_per_epoch * loader.batch_size

    def nms(self, task: str, multi_label: bool, boxes: int, classes: int) -> dict[str, int]:
        """Prepare ``<task>`` (ours), ``<task> plain`` (to the end) and ``<task> plain 300`` on the
        same made-up image.

        Raises: ValueError if the results differ.
        """
        xyxy, scores = crowded_image(boxes, classes)
        options = NMSOptions(conf_thres=0.001, iou_thres=0.65, multi_label=multi_label)
        self.tasks[task] = lambda: nms(xyxy, scores, options)
        self.tasks[f"{task} plain"] = lambda: plain_nms(xyxy, scores, options, stop_early=False)
        self.tasks[f"{task} plain 300"] = lambda: plain_nms(xyxy, scores, options, stop_early=True)
        ours = self.tasks[task]()
        for other in (f"{task} plain", f"{task} plain 300"):
            if not np.array_equal(ours, self.tasks[other]()):
                raise ValueError(f"nms: {other} gives another result than ours")
        candidates = (
            int((scores > 0.001).sum()) if multi_label else int((scores.max(1) > 0.001).sum())
        )
        return {"candidates": min(candidates, options["max_candidates"]), "kept": len(ours)}


def crowded_image(boxes: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (A, 4) around 40 objects of a 640 x 640 image and scores (A, K) with a long tail, the
    same every time.
    """
    rng = np.random.RandomState(0)
    sizes, centres = rng.uniform(20, 250, (40, 2)), rng.uniform(60, 580, (40, 2))
    owner = rng.randint(40, size=boxes)
    xy = centres[owner] + rng.standard_normal((boxes, 2)) * sizes[owner] * 0.25
    wh = sizes[owner] * np.exp(rng.standard_normal((boxes, 2)) * 0.25)
    logits = rng.standard_normal((boxes, classes)) * 2
    logits[np.arange(boxes), owner % classes] += 5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    objectness = 1 / (1 + np.exp(3.0 - 2 * rng.standard_normal((boxes, 1))))
    xyxy = np.concatenate([xy - wh / 2, xy + wh / 2], axis=1)
    return xyxy.astype(np.float32), (probabilities * objectness).astype(np.float32)


if __name__ == "__main__":
    launch.start("CPU", seed=0)
    serve(Ours(int(sys.argv[1])))

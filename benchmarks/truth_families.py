"""What tells the families apart in ``training_truth.py``: how images are laid out, and what the
original program and our recipe are given so that both train the same.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mindyolo_ext.atomic import write_json, write_text
from mindyolo_ext.checkpoint.convert import convert
from mindyolo_ext.config import Config, load_config
from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.engine.accuracy_speed import accuracy_over_speed
from mindyolo_ext.engine.darknet import recipe_overrides
from mindyolo_ext.engine.evaluate import evaluate
from mindyolo_ext.engine.evaluate_file import Loaded
from mindyolo_ext.models.yolo_fastestv2.variants import COCO_ANCHORS

SPLITS = ("train", "val")
NOMINAL_BATCH = 64  # images that the weight decay of Gold-YOLO and DynamicDet refers to
BCCD_ANCHORS = (
    (22.16, 28.53),
    (46.53, 69.42),
    (57.75, 78.68),
    (60.01, 61.97),
    (69.96, 85.45),
    (118.75, 143.03),
)
BCCD_NAMES = ["RBC", "WBC", "Platelets"]
ANCHOR_SIZE = 352  # that these are meant for


@dataclass(frozen=True)
class Task:
    """What is trained, and where.

    Args:
        folder: for everything that is written.
        data: BCCD, or a folder like it: ``JPEGImages``, ``yolo_labels/train`` and ``val``, and
            ``classes.names``.
        start: weights of the original to start from; None for fresh ones.
        size: side of the network input.
        every: epochs between evaluations.
        rate: learning rate, as the family's recipe counts it.
        threads: of each program's framework.
        falls: whether Yolo-FastestV2's rate falls to a tenth for the last quarter. Results scatter
            less behind the fall; the other families' rates fall anyway.
        ours: settings of our recipe, ``section.key=value``.
        pythons: further backends of ours, and the Python of each.
        teacher: of Gold-YOLO's step 2: weights of step 1, as the original or this program wrote
            them.
    """

    family: str
    folder: Path
    data: Path
    start: Path | None
    epochs: int
    size: int
    batch: int
    every: int
    rate: float
    threads: int
    falls: bool = False
    ours: tuple[str, ...] = ()
    pythons: tuple[tuple[str, str], ...] = ()
    teacher: Path | None = None

    def place(self, side: str, seed: int) -> Path:
        """The folder of a run."""
        return self.folder / side / f"seed_{seed}"

    @property
    def sides(self) -> list[str]:
        """The original, this process's backend, and further ones."""
        return ["original", "ours", *(name for name, _ in self.pythons)]

    @property
    def names(self) -> list[str]:
        """Names of the classes."""
        return (self.data / "classes.names").read_text(encoding="utf-8").splitlines()

    @property
    def evaluated(self) -> list[int]:
        """Numbers of finished epochs after which there is an evaluation."""
        last = [] if self.epochs % self.every == 0 else [self.epochs]
        return [*range(self.every, self.epochs + 1, self.every), *last]


class Family:
    """What the families share."""

    metrics: tuple[str, ...] = ("AP", "AP50")
    only_result = False  # whether weights of earlier epochs are left out
    # Terms of the loss: name, the original's column with its weight, our columns that it sums
    terms: tuple[tuple[str, str, float, tuple[str, ...]], ...] = (
        ("box", "box", 1.0, ("box",)),
        ("object", "object", 1.0, ("object",)),
        ("class", "class", 1.0, ("class",)),
    )

    def measure(self, loaded: Loaded, config: Config) -> tuple[dict[str, float], list[dict]]:
        """The metrics of a network, and further rows for a table of their own."""
        options = {"workers": 0, "class_names": loaded.class_names}
        found = evaluate(loaded.predictor, loaded.dataset, config.eval, **options).values()
        return {name: 100 * found[name] for name in self.metrics}, []


class YoloFastestV2(Family):
    """``train.py`` with a ``.data`` file, which our recipe takes too."""

    program = "yolo_fastestv2"  # of ``truth_theirs.py``
    model, recipe, rate = "yolo_fastestv2", "yolo-fastestv2", 0.001
    entry = ""  # of the original's checkpoints that holds the weights

    def keywords(self, task: Task) -> dict[str, object]:
        """Of the model's builder."""
        anchors = BCCD_ANCHORS if task.names == BCCD_NAMES else COCO_ANCHORS
        return {"anchors": np.round(np.multiply(anchors, task.size / ANCHOR_SIZE), 2).tolist()}

    def conversion(self, task: Task) -> dict[str, object]:
        """What the weights do not say of the network, for ``convert``."""
        return {"anchors": np.ravel(self.keywords(task)["anchors"]).tolist()}

    def lay_out(self, task: Task) -> None:
        """Images with their label texts beside them."""
        for split in SPLITS:
            folder = task.folder / "data" / split
            for label in labels_of(task, split):
                link(folder / label.name, label)
                link(folder / f"{label.stem}.jpg", image_of(task, label))

    def job(self, task: Task, place: Path, seed: int) -> dict[str, object]:
        """For the original, which cuts paths at their first dot: ``place`` has none."""
        return {"data": str(place / self.data_file(task, place, seed).name)}

    def settings(self, task: Task, place: Path, seed: int) -> list[str]:
        """For our recipe."""
        return [
            text
            for text in recipe_overrides(self.data_file(task, place, seed))
            if not text.startswith("train.weight=")
        ]

    def data_file(self, task: Task, place: Path, seed: int) -> Path:
        """The settings of both, with paths below ``place``."""
        for split in SPLITS:
            images = sorted((task.folder / "data" / split).glob("*.jpg"))
            lines = [f"{place}/data/{split}/{image.name}\n" for image in images]
            write_text(task.folder / f"{split}.txt", "".join(lines))
        anchors = np.ravel(self.keywords(task)["anchors"]).tolist()
        settings = {
            "model_name": "truth",
            "epochs": task.epochs,
            "steps": f"{drop_epoch(task)},{20 * task.epochs}",
            "batch_size": task.batch,
            "subdivisions": 1,
            "learning_rate": task.rate,
            "pre_weights": f"{place}/start/seed_{seed}.pth",
            "classes": len(task.names),
            "width": task.size,
            "height": task.size,
            "anchor_num": 3,
            "anchors": ",".join(map(str, anchors)),
            "train": f"{place}/train.txt",
            "val": f"{place}/val.txt",
            "names": str((task.data / "classes.names").resolve()),
        }
        file = task.folder / f"seed_{seed}.data"
        write_text(file, "".join(f"{key}={value}\n" for key, value in settings.items()))
        return file


class YOLOXNano(Family):
    """The original's ``Trainer`` with ``exps/default/yolox_nano.py``, at one input size.

    Its stream of images never ends, so it has a last batch that ours leaves out: the training
    images are cut to whole batches.
    """

    program = "yolox"
    model, recipe, rate = "yolox_nano", "yolox-nano", 0.01
    entry = "model"
    terms = (
        ("iou", "iou", 1.0, ("iou",)),
        ("l1", "l1", 1.0, ("l1",)),
        ("object", "conf", 1.0, ("object",)),
        ("class", "cls", 1.0, ("class",)),
    )

    def keywords(self, task: Task) -> dict[str, object]:  # noqa: ARG002
        """Of the model's builder."""
        return {}

    conversion = keywords

    def lay_out(self, task: Task) -> None:
        """Images and COCO's json."""
        data = task.folder / "data"
        for split in SPLITS:
            for label in in_whole_batches(task, split):
                link(data / f"{split}2017" / f"{label.stem}.jpg", image_of(task, label))
                link(data / "labels" / split / label.name, label)
            file = data / "annotations" / f"{split}.json"
            if not file.is_file():
                labels = f"labels/{split}"
                reader = {"format": "yolo", "images": f"{split}2017", "labels": labels}
                dataset = build_dataset({**reader, "names": task.names}, data)
                write_json(file, dataset.coco_ground_truth())

    def job(self, task: Task, place: Path, seed: int) -> dict[str, object]:
        """For the original: what its experiment is to say, and the start."""
        settings = {
            "num_classes": len(task.names),
            "data_dir": str(place / "data"),
            "train_ann": "train.json",
            "val_ann": "val.json",
            "input_size": [task.size] * 2,
            "test_size": [task.size] * 2,
            "data_num_workers": 0,
            "max_epoch": task.epochs,
            "warmup_epochs": 1,
            "no_aug_epochs": quiet_end(task),
            "basic_lr_per_img": task.rate / 64,
            "print_interval": 10**9,
            "output_dir": str(task.place("original", seed).resolve()),
            "seed": seed,
        }
        start = str(place / "start" / f"seed_{seed}.pth")
        return {
            "exp": "exps/default/yolox_nano.py",
            "settings": settings,
            "start": start,
            "batch": task.batch,
        }

    def settings(self, task: Task, place: Path, seed: int) -> list[str]:  # noqa: ARG002
        """For our recipe."""
        stage = {
            "from_epoch": -(quiet_end(task) + 1),
            "loss": {"l1": True},
            "augment": ["yolox_hsv_flip"],
            "eval_interval": task.every,
        }
        values = {
            "input.size": [task.size, task.size],
            "data.root": str(place / "data"),
            "data.train": coco("train"),
            "data.val": coco("val"),
            "train.epochs": task.epochs,
            "train.per_batch_size": task.batch,
            "train.optimizer.lr": task.rate / 64,
            "train.schedule.warmup_epochs": 1,
            "train.schedule.flat_epochs": quiet_end(task),
            "train.stages": [stage],
            "train.multi_scale": [],
        }
        return [f"{key}={json.dumps(value)}" for key, value in values.items()]


@dataclass(frozen=True)
class SimpleYOLO(Family):
    """The original's trainer with ``configs/my_config.py``, ResNet-18 at a quarter of its width.

    Args:
        assignment: of labels to cells.
    """

    assignment: str

    program = "simple_yolo"
    model, recipe, rate = "simple_yolo_resnet18", "simple-yolo-resnet18-bccd", 0.001
    entry = "state_dict"
    width = 0.25
    terms = (
        ("box", "iou", 0.1, ("box",)),
        ("object", "conf", 1.0, ("object",)),
        ("class", "class", 1.0, ("class",)),
    )

    def keywords(self, task: Task) -> dict[str, object]:
        """Of the model's builder."""
        return {"channel_sparsity": self.width, **self.conversion(task)["model_keywords"]}

    def conversion(self, task: Task) -> dict[str, object]:  # noqa: ARG002
        """What the weights do not say of the network, for ``convert``."""
        return {"model_keywords": {"assignment": self.assignment}}

    def lay_out(self, task: Task) -> None:
        """Images and annotations of Pascal VOC, with our splits under the names that it reads."""
        data = task.folder / "data" / "VOC2007"
        for name in ("JPEGImages", "Annotations"):
            link(data / name, task.data / name)
        for split, theirs in zip(SPLITS, ("trainval", "test")):
            link(
                data / "ImageSets" / "Main" / f"{theirs}.txt",
                task.data / "ImageSets" / "Main" / f"{split}.txt",
            )

    def job(self, task: Task, place: Path, seed: int) -> dict[str, object]:
        """For the original: what its configuration is to say, and the names of the classes."""
        settings = {
            "data_root": str(place / "data"),
            "num_class": len(task.names),
            "train_voc2012": False,
            "channel_sparsity": self.width,
            "label_assignment_method": self.assignment,
            "img_size": [task.size] * 2,
            "total_epoch": task.epochs,
            "train_bs": task.batch,
            "base_lr": 10 * task.rate,  # of which Adam takes a tenth
            "begin_val_epoch": task.epochs,  # none
            "load_ckpt_path": str(place / "start" / f"seed_{seed}.pth"),
            "resume_training": False,
            "save_ckpt": False,
            "save_dir": str(task.place("original", seed).resolve()),
            "use_tb": False,
            "random_seed": seed,
        }
        return {"settings": settings, "names": task.names}

    def settings(self, task: Task, place: Path, seed: int) -> list[str]:  # noqa: ARG002
        """For our recipe."""
        values = {
            "model.keywords.assignment": self.assignment,
            "input.size": [task.size, task.size],
            "data.root": str(task.data.resolve()),
            "train.epochs": task.epochs,
            "train.per_batch_size": task.batch,
            "train.optimizer.lr": task.rate,
            "train.optimizer.lr_per_image": False,
        }
        return [f"{key}={json.dumps(value)}" for key, value in values.items()]


class YoloLabels(Family):
    """What the originals share that train on label texts.

    Their loaders keep an incomplete last batch, so the training images are cut to whole batches.
    But for ``RouterW0125``, both programs make an update per batch, where the originals sum small
    batches to 64 images.
    """

    def conversion(self, task: Task) -> dict[str, object]:  # noqa: ARG002
        """What the weights do not say of the network, for ``convert``."""
        return {}

    def lay_out(self, task: Task) -> None:
        """Whole batches of images, and their label texts in a folder beside them."""
        for split in SPLITS:
            for label in in_whole_batches(task, split):
                link(task.folder / "data" / "labels" / split / label.name, label)
                image = task.folder / "data" / "images" / split / f"{label.stem}.jpg"
                link(image, image_of(task, label))


@dataclass(frozen=True)
class GoldYOLON(YoloLabels):
    """The original's ``Trainer`` with ``configs/gold_yolo-n.py``.

    Args:
        distilled: step 2, which learns from ``Task.teacher``, instead of step 1.
    """

    distilled: bool = False

    program = "gold_yolo"
    model, rate = "gold_yolo_n", 0.01
    entry = ""
    warmup = 3

    @property
    def recipe(self) -> str:
        """Ours."""
        return "gold_yolo-n-distill" if self.distilled else "gold_yolo-n"

    @property
    def terms(self) -> tuple[tuple[str, str, float, tuple[str, ...]], ...]:
        """The original sums the terms of both branches, or of both teachers: labels and network."""
        return (
            ("iou", "iou", 1.0, ("iou", *([] if self.distilled else ["iou_ab"]))),
            ("dfl", "dfl", 1.0, ("dfl", *(["distill_dfl"] if self.distilled else []))),
            ("class", "class", 1.0, ("class", "distill_class" if self.distilled else "class_ab")),
        )

    def keywords(self, task: Task) -> dict[str, object]:  # noqa: ARG002
        """Of the model's builder."""
        return {"form": "distill" if self.distilled else "fuse_ab"}

    def lay_out(self, task: Task) -> None:
        """Images, label texts, and the teacher. Raises: SystemExit if there is none in step 2."""
        super().lay_out(task)
        if self.distilled:
            if task.teacher is None:
                raise SystemExit(
                    f"{task.family}: learns from the weights of step 1; name them with --teacher, "
                    "for example original/seed_1/epoch_080.pth of gold_yolo_n's --save_dir"
                )
            convert_named(task, task.teacher, task.folder / "teacher.ckpt")

    def job(self, task: Task, place: Path, seed: int) -> dict[str, object]:
        """For the original: its arguments and what its configuration is to say."""
        arguments = {
            "data_path": str(place / data_yaml(task, place, is_coco=False).name),
            "img_size": task.size,
            "batch_size": task.batch,
            "bs_per_gpu": task.batch,
            "epochs": task.epochs,
            "workers": 0,
            "device": "cpu",
            "stop_aug_last_n_epoch": quiet_end(task),
            "fuse_ab": not self.distilled,
            "distill": self.distilled,
            "save_dir": str(task.place("original", seed).resolve()),
        }
        return {
            "config": "configs/gold_yolo-n.py",
            "arguments": arguments,
            "rate": task.rate,
            "warmup_epochs": self.warmup,
            "num_classes": len(task.names),
            "start": str(place / "start" / f"seed_{seed}.pth"),
            "teacher": str(task.teacher.resolve()) if self.distilled else "",
        }

    def settings(self, task: Task, place: Path, seed: int) -> list[str]:  # noqa: ARG002
        """For our recipe."""
        config = load_config(self.recipe)
        stages = [its for its in config.train.stages if its.augment is not None]
        end = {"from_epoch": -quiet_end(task), "augment": stages[-1].augment}
        summed = max(1, round(NOMINAL_BATCH / task.batch))
        values = {
            **yolo_data(task, place),
            "train.optimizer.lr": task.rate,
            "train.optimizer.lr_per_image": False,
            "train.optimizer.weight_decay": 0.0005 * summed * task.batch / NOMINAL_BATCH,
            "train.schedule.warmup_epochs": self.warmup,
            "train.schedule.warmup_min_steps": 0,
            "train.stages": [end],
        }
        if self.distilled:
            values["train.distill.teacher"] = str(place / "teacher.ckpt")
        return [f"{key}={json.dumps(value)}" for key, value in values.items()]


class DynamicDetW0125(YoloLabels):
    """``train_step1.py`` with an eighth of Dy-YOLOv7's channels.

    The original's images come in the order of the files; ours are shuffled.
    """

    program = "dynamicdet"
    model, recipe, rate = "dy_yolov7_w0125", "dy-yolov7-w0125-bccd-step1", 0.01
    entry = "model"
    warmup = 3
    router = False

    def keywords(self, task: Task) -> dict[str, object]:  # noqa: ARG002
        """Of the model's builder."""
        return {"router": self.router}

    def job(self, task: Task, place: Path, seed: int) -> dict[str, object]:
        """For the original: its program, command line, hyper-parameters and network."""
        arguments = {
            "data": str(place / data_yaml(task, place).name),
            "epochs": task.epochs,
            "batch-size": task.batch,
            "img-size": task.size,
            "project": str(task.place("original", seed).resolve()),
        }
        return {
            "model": self.model,
            "step": 2 if self.router else 1,
            "arguments": arguments,
            "hyper": self.hyper_parameters(task),
            "labels": str(place / "data" / "labels"),
            "start": str(place / "start" / f"seed_{seed}.pth"),
        }

    def hyper_parameters(self, task: Task) -> dict[str, float]:
        """What differs from the original's file."""
        values = {"mosaic": 0.5, "scale": 0.3, "translate": 0.1, "mixup": 0.0, "paste_in": 0.0}
        return values | {"lr0": task.rate, "warmup_epochs": self.warmup}

    def settings(self, task: Task, place: Path, seed: int) -> list[str]:  # noqa: ARG002
        """For our recipe."""
        values = {
            **yolo_data(task, place),
            "train.optimizer.lr": task.rate,
            "train.loss.objectness": 0.7 * (task.size / 640) ** 2,
            "train.loss.classes": 0.3 * len(task.names) / 80,
            **self.step_settings(task),
        }
        return [f"{key}={json.dumps(value)}" for key, value in values.items()]

    def step_settings(self, task: Task) -> dict[str, object]:
        """Those of this training step."""
        mosaic = {"name": "dynamicdet_mosaic", "probability": 0.5, "nine_probability": 0.2}
        mosaic |= {"scale": 0.3, "translate": 0.1, "mixup_probability": 0.0, "max_boxes": 160}
        return {
            "data.max_boxes": mosaic["max_boxes"],
            "data.augment": [mosaic, *load_config(self.recipe).data.augment[1:]],
            "train.optimizer.nominal_batch": task.batch,
            "train.optimizer.weight_decay": 0.0005 * task.batch / NOMINAL_BATCH,
            "train.schedule.warmup_epochs": self.warmup,
            "train.ema_decay": 0.9999,
            "train.ema_warmup": 2000,
        }


class RouterW0125(DynamicDetW0125):
    """``train_step2.py``: the router of a cascade, whose weights of step 1 are the start.

    Images are summed to updates as the original does it. The result is the accuracy at every share
    of easy images, and the thresholds.
    """

    recipe, rate = "dy-yolov7-step2", 1e-5
    router = True
    metrics = ("AP, all easy", "AP, half easy", "AP, none easy", "threshold, half easy")
    only_result = True
    thresholds = "dynamicdet_thresholds"  # of ``truth_theirs.py``
    terms = tuple((name, name, 1.0, (name,)) for name in ("difference", "easy", "hard"))

    def lay_out(self, task: Task) -> None:
        """Images and label texts. Raises: SystemExit for another batch, or without weights."""
        if task.batch != 1 or task.start is None:
            raise SystemExit(
                f"{task.family}: the original trains routers one image at a time, from the weights "
                "of step 1; take --per_batch_size 1 --start FILE.pth, for example "
                "original/seed_1/epoch_080.pth of dynamicdet_w0125's --save_dir"
            )
        super().lay_out(task)

    def hyper_parameters(self, task: Task) -> dict[str, float]:
        """What differs from the original's file."""
        return {"lr0": task.rate}

    def step_settings(self, task: Task) -> dict[str, object]:  # noqa: ARG002
        """Those of this training step."""
        return {"model.name": self.model, "data.max_boxes": 160, "eval.rectangular": True}

    def measure(self, loaded: Loaded, config: Config) -> tuple[dict[str, float], list[dict]]:
        """Metrics of a result, and the rows of its accuracy over speed."""
        rows = accuracy_over_speed(
            loaded.predictor, loaded.dataset, config.eval, workers=0
        ).rows  # from all images easy to none
        values = [*(100 * rows[i]["AP"] for i in (0, 5, 10)), 100 * rows[5]["threshold"]]
        return dict(zip(self.metrics, values)), rows


FAMILIES: dict[str, Family] = {
    "yolo_fastestv2": YoloFastestV2(),
    "yolox": YOLOXNano(),
    "gold_yolo_n": GoldYOLON(),
    "gold_yolo_n_step2": GoldYOLON(distilled=True),
    "dynamicdet_w0125": DynamicDetW0125(),
    "dynamicdet_w0125_step2": RouterW0125(),
    **{
        f"simple_yolo_{assignment}": SimpleYOLO(assignment)
        for assignment in ("single_grid", "nearby_grid", "all_grid")
    },
}


def labels_of(task: Task, split: str) -> Sequence[Path]:
    """The label texts of a split."""
    return sorted((task.data / "yolo_labels" / split).glob("*.txt"))


def in_whole_batches(task: Task, split: str) -> Sequence[Path]:
    """The label texts of a split, those for training without an incomplete last batch."""
    labels = labels_of(task, split)
    return labels[: len(labels) // task.batch * task.batch] if split == "train" else labels


def image_of(task: Task, label: Path) -> Path:
    """The image of a label text."""
    return task.data / "JPEGImages" / f"{label.stem}.jpg"


def link(place: Path, file: Path) -> None:
    """Let ``place`` be ``file``."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        place.symlink_to(file.resolve())


def data_yaml(task: Task, place: Path, **others: object) -> Path:
    """The file that names the images of ``YoloLabels`` below ``place``, and the classes."""
    images = {split: str(place / "data" / "images" / split) for split in SPLITS}
    file = task.folder / "data.yaml"
    write_json(file, {**images, "nc": len(task.names), "names": task.names, **others})
    return file


def convert_named(task: Task, weights: Path, target: Path) -> None:
    """Convert weights of the original, with the names of the classes and what the file lacks."""
    names = task.folder / "names.txt"
    write_text(names, "\n".join(task.names) + "\n")
    convert(weights, target, names=names, **FAMILIES[task.family].conversion(task))


def yolo_data(task: Task, place: Path) -> dict[str, object]:
    """Settings of ours for what ``YoloLabels`` laid out, and for the length of the training."""
    data = {
        f"data.{split}": {
            "format": "yolo",
            "images": f"images/{split}",
            "labels": f"labels/{split}",
            "names": task.names,
        }
        for split in SPLITS
    }
    return {
        "input.size": [task.size, task.size],
        "data.root": str(place / "data"),
        **data,
        "train.epochs": task.epochs,
        "train.per_batch_size": task.batch,
    }


def drop_epoch(task: Task) -> int:
    """The epoch from which Yolo-FastestV2's rate is a tenth; behind the last one if it stays."""
    return max(1, 3 * task.epochs // 4) if task.falls else 10 * task.epochs


def quiet_end(task: Task) -> int:
    """YOLOX's epochs without mosaic at the end: a fifth."""
    return max(1, task.epochs // 5)


def coco(split: str) -> dict[str, str]:
    """A data set of COCO's form."""
    annotations = f"annotations/{split}.json"
    return {"format": "coco", "images": f"{split}2017", "annotations": annotations}

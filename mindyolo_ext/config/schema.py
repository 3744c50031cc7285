"""All settings of a recipe: one dataclass per section, one sentence per setting.

``mindyolo-ext recipe`` prints this file as a table, and ``docs/recipe.md`` is that table. Defaults
work for training; some are placeholders, for example for "the model's own", and ``empty`` explains
their meaning.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias

import yaml

from mindyolo_ext.config.option import Section, option
from mindyolo_ext.errors import shown

AugmentStep: TypeAlias = str | dict[str, Any]  # a name, or a mapping with ``name`` and keywords
OWN = "the model's own"
# Settings that no longer exist, with the only value they had: saved recipes of old runs name them
RETIRED = {"train.schedule.warmup_start_ratio": 0.0}


def _unnamed_steps(steps: list[AugmentStep]) -> Iterator[tuple[str, str]]:
    """Yield the problems of augmentation steps without a name."""
    for number, step in enumerate(steps):
        if isinstance(step, dict) and not isinstance(step.get("name"), str):
            yield (
                f"augment[{number}]",
                f"wanted a name, or a mapping with name, got {shown(repr(step))}",
            )


@dataclass(frozen=True)
class ModelConfig(Section):
    """The network."""

    name: str = option("", "Name of the network, one of `mindyolo-ext models`.", empty="none")
    keywords: dict[str, Any] = option(
        {}, "Keywords of the network's builder, for example `anchors` or `form`."
    )


@dataclass(frozen=True)
class InputConfig(Section):
    """How an image becomes the network's input. Settings that are not set stay the model's own."""

    size: list[int] = option(
        [], "Height and width of the network input, in pixels.", least=1, empty=OWN
    )
    color: Literal["", "bgr", "rgb"] = option("", "Order of the color channels.", empty=OWN)
    scale: float = option(
        0.0, "Factor for the pixel values 0..255, applied before mean and std.", least=0, empty=OWN
    )
    mean: list[float] = option(
        [], "Subtracted from each scaled channel, in the order of `color`.", empty=OWN
    )
    std: list[float] = option(
        [], "Divides each scaled channel after the mean is subtracted.", empty=OWN
    )
    resize: Literal["", "stretch", "letterbox"] = option(
        "",
        "Whether an image is stretched to the input, or keeps its aspect ratio and is padded.",
        empty=OWN,
    )
    rounding: Literal["", "nearest", "down", "down_whole", "down_height", "down_twice"] = option(
        "", "How the sides of a letterboxed image are rounded to whole pixels.", empty=OWN
    )
    shrink: Literal["", "linear", "area"] = option(
        "", "Interpolation for letterboxed images that are made smaller.", empty=OWN
    )
    resample: Literal["", "linear", "bicubic"] = option(
        "", "Filter: OpenCV's linear one, or Pillow's bicubic one.", empty=OWN
    )
    border: int | None = option(
        None,
        "Pixels by which an image's longer side stays shorter than the input's longer side.",
        least=0,
        empty=OWN,
    )

    def rules(self) -> Iterator[tuple[str, str]]:
        """Require as many numbers in a list as the input has sides or channels."""
        for key, length in (("size", 2), ("mean", 3), ("std", 3)):
            found = asdict(self)[key]
            if len(found) not in (0, length):
                yield key, f"wanted {length} numbers, got {shown(repr(found))}"


@dataclass(frozen=True)
class DataConfig(Section):
    """The images, and how they become batches."""

    root: str = option(".", "Folder that the paths of `train` and `val` refer to.")
    class_names: list[str] = option(
        [],
        "Class names that the data set must have, in this order, once `classes` and `single_cls` "
        "are applied.",
        empty="the names in the data set",
    )
    num_classes: int = option(
        0,
        "Number of classes that the data set must have, counted in the same way.",
        least=0,
        empty="the number in the data set",
    )
    classes: list[int | str] = option(
        [],
        "Names or numbers (in the order of the data set) of the classes to keep, in this order; "
        "images without a box of them stay as background.",
        least=0,
        empty="all",
    )
    single_cls: bool = option(
        False,
        "Merge all classes into one, named `object`: detect objects without classifying them.",
    )
    fraction: float = option(
        1.0,
        "Share of the training images to train on, selected by `train.seed`; at least one image.",
        least=0,
        most=1,
    )
    train: dict[str, Any] = option(
        {}, "Training images: `format` (coco, yolo, voc, darknet) and what that format needs."
    )
    val: dict[str, Any] = option({}, "Images to evaluate on, described as in `train`.")
    test: dict[str, Any] = option(
        {}, "Images that only `test.py --split test` uses, described as in `train`."
    )
    augment: list[AugmentStep] = option(
        [], "Augmentations of the training images in order: names, or mappings with `name`."
    )
    max_boxes: int = option(
        0,
        "Boxes per image in a batch, padding included; further boxes are dropped.",
        least=0,
        empty="as many as the data set and the augmentations can give",
    )
    workers: int | Literal["auto"] = option(
        "auto",
        "Workers that load images; 0 loads them in the main thread. auto: one per core of this "
        "rank, the cores of the machine divided by its ranks.",
        least=0,
    )
    worker_kind: Literal["thread", "process"] = option(
        "thread", "Whether workers are threads or processes."
    )
    opencv_threads: int = option(
        1,
        "OpenCV threads for preparing training images, in this process and in each worker process.",
        least=0,
    )
    cache: Literal["none", "ram", "disk"] | bool = option(
        "none",
        "Keep decoded images, 3 bytes per pixel, in memory or in a file, for all workers and ranks "
        "of a machine; true is ram, false none.",
    )

    def __post_init__(self) -> None:
        words = {"yes": "ram", "on": "ram", "no": "none", "off": "none"}
        kind = ("ram" if self.cache else "none") if isinstance(self.cache, bool) else self.cache
        object.__setattr__(self, "cache", words.get(kind.lower(), kind))
        super().__post_init__()

    def rules(self) -> Iterator[tuple[str, str]]:
        """Require that steps name their augmentation and that some images are left."""
        yield from _unnamed_steps(self.augment)
        if self.fraction == 0:
            yield "fraction", "wanted a share above 0, got 0"


@dataclass(frozen=True)
class OptimizerConfig(Section):
    """The optimizer, and how many batches are summed for an update."""

    name: Literal["sgd", "adam", "adamw"] = option(
        "sgd",
        "Optimizer. adam adds weight decay to the gradient, adamw subtracts it from the weight.",
    )
    lr: float = option(0.01, "Base learning rate, reached at the end of the warm-up.", least=0)
    lr_per_image: bool = option(
        False, "Multiply `lr` by the global batch size (images per step over all ranks)."
    )
    momentum: float = option(0.9, "Momentum of sgd.", least=0, most=1)
    betas: list[float] = option([0.9, 0.999], "Decay rates of the two moments of adam and adamw.")
    nesterov: bool = option(False, "Nesterov momentum, for sgd.")
    weight_decay: float = option(0.0, "L2 weight decay per update.", least=0)
    groups: Literal["single", "by_kind"] = option(
        "single",
        "Whether all parameters decay, or only weights, without norm scales and biases.",
    )
    clip_norm: float = option(
        0.0,
        "Largest global norm of the gradient, over all ranks; larger gradients are scaled down.",
        least=0,
        empty="no clipping",
    )
    accumulate: int = option(
        1, "Micro batches whose gradients are summed (not averaged) for an update.", least=1
    )
    accumulate_first_alone: bool = option(
        False, "Update after the first micro batch of a training, without summing."
    )
    accumulate_within_epoch: bool = option(
        False, "Drop the gradients of incomplete updates at the end of an epoch."
    )
    nominal_batch: int = option(
        0,
        "Images per update, instead of `accumulate`: sums the number of micro batches that comes "
        "closest, and `weight_decay` refers to an update of this many images.",
        least=0,
        empty="off",
    )

    def rules(self) -> Iterator[tuple[str, str]]:
        """Require two betas, and only one of ``accumulate`` and ``nominal_batch``."""
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            yield "betas", f"wanted two numbers from 0 to below 1, got {self.betas}"
        if self.nominal_batch and self.accumulate != 1:
            yield (
                "accumulate",
                f"wanted 1 with nominal_batch {self.nominal_batch}, which sets the same, got "
                f"{self.accumulate}; set nominal_batch to 0, and adjust weight_decay",
            )


# Settings that one_cycle would ignore, because it has its own warm-up
NOT_ONE_CYCLE = ("warmup_min_steps", "warmup_power", "warmup_bias_lr", "warmup_momentum")


@dataclass(frozen=True)
class ScheduleConfig(Section):
    """Learning rate, momentum and micro batches over time."""

    decay: Literal["constant", "multistep", "step", "cosine", "linear", "one_cycle"] = option(
        "constant", "Curve of the learning rate after the warm-up."
    )
    milestones: list[int] = option(
        [], "multistep: epochs at which `gamma` is applied again.", least=0
    )
    step_size: int = option(
        0, "step: iterations after which `gamma` is applied again.", least=0, empty="not set"
    )
    gamma: float = option(0.1, "multistep, step: factor for the learning rate.", least=0)
    anneal: Literal["cosine", "linear"] = option(
        "cosine", "one_cycle: shape of the rise and the fall."
    )
    final_ratio: float = option(
        0.05, "cosine, linear: final learning rate divided by the base learning rate.", least=0
    )
    flat_epochs: int = option(
        0, "cosine: number of last epochs that stay at the final learning rate.", least=0
    )
    per_epoch: bool = option(
        False, "cosine: one learning rate per epoch, counted from epoch 0, warm-up included."
    )
    one_epoch_late: bool = option(
        False, "per_epoch: after the warm-up, each epoch uses the learning rate of the one before."
    )
    warmup_epochs: float = option(0.0, "Length of the warm-up, in epochs.", least=0)
    warmup_min_steps: int = option(0, "Shortest warm-up, in iterations.", least=0)
    warmup_power: float = option(
        1.0, "Exponent of the warm-up: 1 is a line, 2 a parabola.", least=0
    )
    warmup_bias_lr: float | None = option(
        None,
        "First learning rate of the biases, with `groups: by_kind`.",
        empty="0, as for all other parameters",
    )
    warmup_momentum: float | None = option(
        None, "Initial momentum; it grows during the warm-up.", empty="no warm-up of the momentum"
    )
    warmup_accumulate: bool = option(
        False, "Micro batches per update grow from 1 during the warm-up."
    )
    drops_lost_in_warmup: bool = option(
        False, "multistep: a milestone inside the warm-up has no effect, as in Yolo-FastestV2."
    )

    def __post_init__(self) -> None:
        for key in ("warmup_bias_lr", "warmup_momentum"):
            value = asdict(self)[key]
            if value is not None and value < 0:  # means "not set" in older recipes
                object.__setattr__(self, key, None)
        super().__post_init__()

    def rules(self) -> Iterator[tuple[str, str]]:
        """Reject settings that the chosen decay would ignore."""
        if self.per_epoch and self.decay != "cosine":
            yield "per_epoch", f"wanted decay cosine, got {self.decay}"
        if self.decay == "step" and self.step_size < 1:
            yield "step_size", f"wanted at least 1 iteration for decay step, got {self.step_size}"
        if self.decay == "one_cycle":
            values, plain = asdict(self), {f.name: f.default for f in fields(self)}
            for key in NOT_ONE_CYCLE:
                if values[key] != plain[key]:
                    yield (
                        key,
                        "wanted it left out, because one_cycle has its own warm-up, got "
                        f"{values[key]}",
                    )


@dataclass(frozen=True)
class StageConfig(Section):
    """Changes that start at an epoch. Settings that a stage does not set keep their values."""

    from_epoch: int = option(
        0, "First epoch of the stage; -16 means 16 epochs before the end, or epoch 0."
    )
    loss: dict[str, Any] = option({}, "Keywords of the loss that change.")
    augment: list[AugmentStep] | None = option(
        None, "Augmentations that replace the previous ones.", empty="those before"
    )
    eval_interval: int | None = option(
        None, "Epochs between evaluations.", least=1, empty="as before"
    )

    def rules(self) -> Iterator[tuple[str, str]]:
        """Require that steps name their augmentation."""
        yield from _unnamed_steps(self.augment or [])


@dataclass(frozen=True)
class DistillConfig(Section):
    """A trained second network that the loss learns from."""

    teacher: str = option("", "Checkpoint of the teacher, which stays frozen.", empty="none")
    recipe: str = option(
        "",
        "Recipe whose sections override this one if there is a teacher; a path relative to the "
        "file that names it.",
        empty="none",
    )


@dataclass(frozen=True)
class TrainConfig(Section):
    """Training."""

    backend: Literal["", "mindspore", "torch"] = option(
        "",
        "Framework to train with. A run saves the framework it used in its recipe.",
        empty="the one that `--backend` or the environment names, else what is installed",
    )
    epochs: int = option(300, "Passes over the training images.", least=1)
    per_batch_size: int = option(16, "Images per step and rank.", least=1)
    loss: dict[str, Any] = option(
        {},
        "`name` of the loss and its keywords.",
        empty="the first loss of the model's family, with its defaults",
    )
    optimizer: OptimizerConfig = option(OptimizerConfig(), "The optimizer.")
    schedule: ScheduleConfig = option(ScheduleConfig(), "The learning rate over time.")
    distill: DistillConfig = option(DistillConfig(), "A teacher to learn from.")
    stages: list[StageConfig] = option(
        [], "Changes of loss, augmentation or evaluations from an epoch on."
    )
    multi_scale: list[int] = option(
        [],
        "Square input sizes to alternate in training, in pixels; the graph compiles once per size.",
        least=1,
        empty="only the input size",
    )
    multi_scale_interval: int = option(10, "Steps between changes of the input size.", least=1)
    rectangular: bool = option(
        False,
        "Batch images of similar shape together, with as little padding as possible; mosaics are "
        "off.",
    )
    rectangular_sizes: int = option(
        4,
        "rectangular: maximum number of input sizes, 0 for no limit; the graph compiles once per "
        "size.",
        least=0,
    )
    weight: str = option(
        "",
        "Checkpoint to start from; tensors that fit are loaded, the others are initialized.",
        empty="random weights",
    )
    freeze: list[str | int] = option(
        [],
        "Prefixes (`backbone`) or patterns (`*.alpha`) of parameters that are not trained, or "
        "numbers of layers, from 0.",
        least=0,
    )
    freeze_bn: bool = option(
        False, "Let batch norms use their stored statistics and not update them."
    )
    sync_bn: bool = option(False, "Compute batch-norm statistics over the batches of all ranks.")
    ema_decay: float = option(
        0.0,
        "Decay of the moving average of the weights per update, at its full value.",
        least=0,
        most=1,
        empty="no moving average",
    )
    ema_ramp: Literal["exponential", "linear"] = option(
        "exponential",
        "How the decay grows: as 1 - exp(-updates / ema_warmup), or evenly over the training.",
    )
    ema_warmup: float = option(
        2000.0, "exponential: updates until the decay reaches 63 % of its full value."
    )
    amp_level: Literal["O0", "O1", "O2", "O3"] = option(
        "O0",
        "Mixed precision: O0 none; O1 convolutions in half precision; O2 and O3 feature maps "
        "too. Norms, heads, losses and weights stay in float32.",
    )
    amp_dtype: Literal["float16", "bfloat16"] = option(
        "float16", "The half precision of `amp_level`; bfloat16 needs no loss scaler."
    )
    channels_last: bool = option(
        False,
        "PyTorch: store feature maps channels last, which is fast on GPUs in half precision. "
        "MindSpore chooses the layout by itself.",
    )
    compile: bool = option(
        False,
        "PyTorch: `torch.compile` the training step, which needs a C++ compiler and takes minutes. "
        "MindSpore always compiles.",
    )
    recompute: bool = option(
        False,
        "Save memory: recompute backbone and neck stage by stage in the backward pass, instead of "
        "keeping their feature maps.",
    )
    jit_level: Literal["", "O0", "O1", "O2"] = option(
        "",
        "MindSpore's compiler: O0 kernel by kernel, O1 with fused kernels, O2 whole graphs.",
        empty="MindSpore's own choice for the device",
    )
    graph_kernel: bool = option(
        False, "MindSpore on GPU and Ascend: fuse operators into kernels, as `jit_level` O1."
    )
    precision_mode: Literal[
        "",
        "force_fp16",
        "allow_fp32_to_fp16",
        "allow_mix_precision",
        "must_keep_origin_dtype",
        "force_fp32",
        "allow_fp32_to_bf16",
        "allow_mix_precision_fp16",
        "allow_mix_precision_bf16",
    ] = option(
        "",
        "MindSpore on Ascend: what the compiler may convert to half precision by itself.",
        empty="MindSpore's own choice, must_keep_origin_dtype",
    )
    loss_scaler: Literal["auto", "none", "static", "dynamic"] = option(
        "auto",
        "Scaling of the loss against underflow in float16; auto means dynamic if `amp_level` "
        "uses float16, else none.",
    )
    loss_scale: float = option(
        1024.0, "Factor of the loss scaler; for a dynamic one, the initial factor."
    )
    seed: int = option(0, "Seed of initial weights, order and augmentation.", least=0)
    run_eval: bool = option(True, "Evaluate while training.")
    eval_interval: int = option(
        1, "Epochs between evaluations; the last epoch is always evaluated.", least=1
    )
    val_loss: bool = option(
        False,
        "Also compute the loss on `data.val` at each evaluation, in a separate pass.",
    )
    best_metric: Literal["AP", "AP50"] = option(
        "AP", "Metric that decides which epoch becomes `best.ckpt`."
    )
    save_interval: int = option(
        1, "Epochs between writes of `last.ckpt`; the last epoch is always written.", least=1
    )
    keep_checkpoint_max: int = option(
        0,
        "Newest epochs, of those at which `last.ckpt` is written, whose weights are kept as "
        "`epoch12.ckpt`.",
        least=0,
        empty="none beside `last.ckpt` and `best.ckpt`",
    )
    keep_best: int = option(
        1,
        "Best epochs whose weights are kept; more than one as `epoch12_AP0.4321.ckpt`, beside "
        "`best.ckpt`.",
        least=1,
    )
    patience: int = option(
        0,
        "Epochs without a better `best_metric` after which the training ends; they count from its "
        "first value above 0.",
        least=0,
        empty="off",
    )
    checkpoint_format: Literal["ckpt", "safetensors"] = option(
        "ckpt", "File format of `last` and `best`."
    )
    log_interval: int = option(10, "Steps between updates of the displayed loss.", least=0)
    loggers: list[Literal["tensorboard", "mlflow", "wandb", "swanlab"]] = option(
        [], "Loggers that receive the metrics of a run, in addition to its own files."
    )
    pictures: bool = option(
        True,
        "Draw the labels, the first batches, and detections of evaluations beside ground truth.",
    )
    max_bad_steps: int = option(
        20,
        "Consecutive steps with a non-finite gradient after which training stops with an error.",
        least=0,
    )

    def rules(self) -> Iterator[tuple[str, str]]:
        """Reject settings that exclude each other."""
        if self.val_loss and self.distill.teacher:
            yield "val_loss", "wanted false with distill.teacher, got true"
        if self.recompute and self.compile:
            yield "recompute", "wanted false with compile true, got true"
        if self.rectangular and self.multi_scale:
            yield (
                "rectangular",
                f"wanted false with multi_scale {self.multi_scale}, got true; --rect True sets "
                "multi_scale to []",
            )


@dataclass(frozen=True)
class EvalConfig(Section):
    """Evaluation."""

    per_batch_size: int = option(1, "Images per batch and rank.", least=1)
    conf_thres: float = option(0.001, "Minimum score of a detection.", least=0, most=1)
    iou_thres: float = option(
        0.65, "IoU above which NMS drops the box with the lower score.", least=0, most=1
    )
    max_detections: int = option(300, "Maximum number of detections per image after NMS.", least=1)
    max_candidates: int = option(
        30000, "Maximum number of boxes per image that enter NMS.", least=1
    )
    multi_label: bool = option(
        False, "Let a prediction yield several detections, one per class above `conf_thres`."
    )
    class_agnostic: bool = option(False, "Apply NMS across classes.")
    clip: bool = option(True, "Clip boxes to the image.")
    rectangular: bool = option(
        False, "Batch images of similar shape together, with as little padding as possible."
    )
    rectangular_pad: float = option(
        0.5, "Padding added to each side of such a batch, in units of the stride.", least=0
    )
    rectangular_sizes: int = option(
        0,
        "rectangular: maximum number of input sizes; the graph compiles once per size.",
        least=0,
        empty="no limit, as in the originals",
    )
    augment: bool = option(
        False,
        "Run every image three times, unchanged, mirrored at 0.83 and at 0.67 of its size, and "
        "merge the boxes in one NMS; takes about twice the time.",
    )
    metrics: list[Literal["darknet", "voc"]] = option(
        [], "Metrics in addition to COCO's: AP50 of PASCAL VOC, or Yolo-FastestV2's own."
    )
    backend: Literal["auto", "faster_coco_eval", "pycocotools"] = option(
        "auto",
        "Package that computes COCO's metrics; all give the same numbers. `auto` uses "
        "faster_coco_eval, which is faster, if it is installed.",
    )
    report_conf: float = option(
        0.3, "Minimum score of detections for precision, recall and F1.", least=0, most=1
    )
    fold: bool = option(True, "Evaluate the deploy form, with folded batch norms.")
    dy_thres: float | None = option(
        None,
        "Routed models: images with an easiness below this take the second exit.",
        least=0,
        most=1,
        empty=OWN,
    )


@dataclass(frozen=True)
class Config(Section):
    """One recipe: everything that defines a run except the machine."""

    model: ModelConfig = option(ModelConfig(), "Which network.")
    input: InputConfig = option(InputConfig(), "How an image becomes the network's input.")
    data: DataConfig = option(DataConfig(), "Which images, and how they become batches.")
    train: TrainConfig = option(TrainConfig(), "Training.")
    eval: EvalConfig = option(EvalConfig(), "Evaluation.")

    def to_yaml(self) -> str:
        """Return the merged recipe as YAML; reading it gives the same recipe."""
        return yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True, width=110)

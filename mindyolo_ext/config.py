"""YAML recipes as frozen dataclasses. No framework, no expressions, no class paths.

``__BASE__`` names parent files (relative to the file that names them); later wins, mappings merge,
lists replace. A key that no dataclass knows is an error that says where it stands and what was
meant.
"""

import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class ModelConfig:
    """Which network. ``keywords`` go to its builder (for example ``anchors``)."""

    name: str = ""
    keywords: dict = field(default_factory=dict)


@dataclass(frozen=True)
class DataConfig:
    """Where the pictures are and how they become batches.

    ``train`` and ``val`` are data-set descriptions (``format`` and its paths, relative to
    ``root``); ``augment`` lists the steps of the training pipeline.
    """

    root: str = "."
    class_names: list = field(default_factory=list)
    num_classes: int = 0  # 0: as many as the data set names
    train: dict = field(default_factory=dict)
    val: dict = field(default_factory=dict)
    augment: list = field(default_factory=list)
    max_boxes: int = 0  # per image, 0: the data set's maximum
    workers: int = 2
    worker_kind: str = "thread"
    cache: bool = False


@dataclass(frozen=True)
class InputConfig:
    """Changes to the model's own InputSpec; empty fields keep its values, and so does a
    ``border`` of None.
    """

    size: list = field(default_factory=list)  # height, width
    color: str = ""
    scale: float = 0.0
    mean: list = field(default_factory=list)
    std: list = field(default_factory=list)
    resize: str = ""
    rounding: str = ""
    shrink: str = ""
    resample: str = ""
    border: int | None = None


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimiser. ``groups``: ``single``, or ``by_kind`` (weights with decay; norm scales and biases
    without).

    ``nominal_batch`` is a number of images: as many micro batches as come closest to it are summed
    for an update, and ``weight_decay`` is meant for an update of so many; ``accumulate`` stays 1
    then.
    """

    name: str = "sgd"  # sgd | adam | adamw
    lr: float = 0.01
    lr_per_image: bool = False  # lr is multiplied by the global batch size
    momentum: float = 0.9  # of sgd
    betas: list = field(default_factory=lambda: [0.9, 0.999])  # of adam and adamw
    nesterov: bool = False
    weight_decay: float = 0.0
    groups: str = "single"
    clip_norm: float = 0.0
    accumulate: int = 1
    # as darknet loops: the first micro batch is a step of its own
    accumulate_first_alone: bool = False
    # what the end of an epoch leaves without an update is dropped
    accumulate_within_epoch: bool = False
    nominal_batch: int = 0

    def __post_init__(self) -> None:
        if len(self.betas) != 2 or not all(
            isinstance(b, (int, float)) and 0 <= b < 1 for b in self.betas
        ):
            raise ValueError(
                f"train.optimizer.betas: wanted two numbers from 0 to below 1, got {self.betas}"
            )
        if self.accumulate < 1 or self.nominal_batch < 0:
            raise ValueError(
                "train.optimizer: wanted accumulate of at least 1 and nominal_batch of at least "
                f"0, got {self.accumulate} and {self.nominal_batch}"
            )
        if self.nominal_batch and self.accumulate != 1:
            raise ValueError(
                f"train.optimizer: accumulate {self.accumulate} beside nominal_batch "
                f"{self.nominal_batch}, which says the same; set nominal_batch to 0, and "
                "weight_decay as you want it"
            )


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over time; warm-up by iteration, decay by epoch or iteration."""

    decay: str = "constant"  # constant | multistep | step | cosine | linear | one_cycle
    # multistep: epochs from which gamma counts once more
    milestones: list = field(default_factory=list)
    step_size: int = 0  # step: iterations after which gamma counts once more
    gamma: float = 0.1
    anneal: str = "cosine"  # one_cycle: cosine | linear, the way up and the way down
    final_ratio: float = 0.05  # cosine, linear: last rate / first rate
    flat_epochs: int = 0  # cosine: last epochs at the final rate
    per_epoch: bool = False  # cosine: one rate per epoch; counts from epoch 0, warm-up included
    # per_epoch: epochs after the warm-up take the rate of the one before
    one_epoch_late: bool = False
    warmup_epochs: float = 0.0
    warmup_min_steps: int = 0  # the warm-up takes at least so many iterations
    warmup_power: float = 1.0
    warmup_start_ratio: float = 0.0
    warmup_bias_lr: float = -1.0  # first rate of the bias group, negative: as the others
    warmup_momentum: float = -1.0  # first momentum, negative: as always
    warmup_accumulate: bool = False  # micro batches per update grow from 1 along the warm-up
    # as Yolo-FastestV2: a milestone inside the warm-up has no effect
    drops_lost_in_warmup: bool = False


@dataclass(frozen=True)
class StageConfig:
    """From ``from_epoch`` on, ``loss``, ``augment`` and ``eval_interval`` change; what a stage
    leaves out stays.

    A negative ``from_epoch`` counts from the end: -16 are the last 16 epochs, all of them where
    there are fewer.
    """

    from_epoch: int = 0
    loss: dict = field(default_factory=dict)
    augment: list | None = None
    eval_interval: int | None = None

    def __post_init__(self) -> None:
        if self.eval_interval is not None and self.eval_interval < 1:
            raise ValueError(
                f"train.stages: eval_interval must be at least 1, got {self.eval_interval}"
            )


@dataclass(frozen=True)
class DistillConfig:
    """A second network that a trainable learns from.

    Args:
        teacher: checkpoint of ours. It is handed to the trainable as ``teacher``, frozen.
        recipe: what changes where there is a teacher, a recipe file beside the one that names it.
            Its own sections (not those of its ``__BASE__``) are laid over the recipe as soon as
            ``teacher`` is set.
    """

    teacher: str = ""
    recipe: str = ""


@dataclass(frozen=True)
class TrainConfig:
    """Training. ``loss.name`` is the registered trainable, the other keys of ``loss`` its
    keywords.
    """

    epochs: int = 300
    per_batch_size: int = 16
    loss: dict = field(default_factory=dict)
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    distill: DistillConfig = DistillConfig()
    stages: list[StageConfig] = field(default_factory=list)
    multi_scale: list = field(default_factory=list)  # square sizes in pixels, empty: the input size
    multi_scale_interval: int = 10
    weight: str = ""  # start from this checkpoint
    # beginnings or patterns (*.alpha) of parameter names, not trained
    freeze: list = field(default_factory=list)
    freeze_bn: bool = False  # statistics stay as loaded
    sync_bn: bool = False  # statistics over all ranks
    ema_decay: float = 0.0  # 0: no moving average
    # to ema_decay: exponential (ema_warmup), or linear over the training
    ema_ramp: str = "exponential"
    ema_warmup: float = 2000.0
    amp_level: str = "O0"
    loss_scaler: str = "none"
    loss_scale: float = 1024.0
    seed: int = 0
    run_eval: bool = True
    eval_interval: int = 1
    best_metric: str = "AP"  # AP | AP50: what best.ckpt is best at
    save_interval: int = 1
    checkpoint_format: str = "ckpt"  # ckpt | safetensors: what last and best are written as
    log_interval: int = 10
    max_bad_steps: int = 20  # steps in a row without a finite gradient before training gives up

    def __post_init__(self) -> None:
        if self.eval_interval < 1:
            raise ValueError(f"train.eval_interval must be at least 1, got {self.eval_interval}")
        if self.best_metric not in ("AP", "AP50"):
            raise ValueError(f"train.best_metric: wanted AP or AP50, got {self.best_metric!r}")
        if self.checkpoint_format not in ("ckpt", "safetensors"):
            raise ValueError(
                "train.checkpoint_format: wanted ckpt or safetensors, got "
                f"{self.checkpoint_format!r}"
            )
        if self.ema_ramp not in ("exponential", "linear"):
            raise ValueError(f"train.ema_ramp: wanted exponential or linear, got {self.ema_ramp!r}")


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation. ``metrics`` beside COCO: ``darknet``, the original's own metric of
    Yolo-FastestV2, and ``voc``, AP50
    by the rules of PASCAL VOC. ``backend`` computes COCO's: ``pycocotools``, or
        ``faster_coco_eval``, which is quicker.

    ``dy_thres`` is for routed models: images whose easiness is below it take the second exit. None:
    the model's own.
    """

    per_batch_size: int = 1
    conf_thres: float = 0.001
    iou_thres: float = 0.65
    max_detections: int = 300
    max_candidates: int = 30000
    multi_label: bool = False
    class_agnostic: bool = False
    clip: bool = True  # boxes end at the photo's border
    rectangular: bool = False  # pictures of like shape share a batch as narrow as they allow
    rectangular_pad: float = 0.5  # added to each side of such a batch, in units of the stride
    metrics: list = field(default_factory=list)
    backend: str = "pycocotools"
    report_conf: float = 0.3  # for precision, recall, F1 and pictures
    fold: bool = True  # evaluate the deploy form (BatchNorm folded)
    dy_thres: float | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.metrics if name not in ("darknet", "voc")]
        if unknown:
            raise ValueError(f"eval.metrics: has {unknown}, known beside COCO are darknet and voc")
        if self.backend not in ("pycocotools", "faster_coco_eval"):
            raise ValueError(
                f"eval.backend: wanted pycocotools or faster_coco_eval, got {self.backend!r}"
            )
        if self.dy_thres is not None and not 0 <= self.dy_thres <= 1:
            raise ValueError(f"eval.dy_thres: wanted a threshold in 0..1, got {self.dy_thres}")


@dataclass(frozen=True)
class Config:
    """One recipe: everything a run needs besides the machine."""

    model: ModelConfig = ModelConfig()
    input: InputConfig = InputConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()

    def to_yaml(self) -> str:
        """The merged recipe as YAML, as every run prints and saves it."""
        return yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True, width=110)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a recipe with its parents.

    Args:
        path: YAML file.
        overrides: ``section.key=value`` strings, the value in YAML.

    Raises: FileNotFoundError, or ValueError that names file, key and what was wanted.
    """
    file, changes = _read_merged(Path(path), ()), {}
    for text in overrides:
        changes = _merge(changes, parse_override(text))
    config = config_from_mapping(_merge(file, changes), str(path))
    second = config.train.distill.recipe
    if not (config.train.distill.teacher and second):
        return config
    overlay = _read_own(Path(second), "train.distill.recipe")
    overlay.pop("__BASE__", None)
    once = {"train": {"distill": {"recipe": ""}}}
    return config_from_mapping(
        _merge(_merge(_merge(file, overlay), changes), once), f"{path} with {second}"
    )


def config_from_mapping(values: Mapping[str, Any], where: str = "config") -> Config:
    """Checked dataclasses from nested mappings; ``where`` names the source in errors."""
    return _build(Config, values, where, "")


def override(config: Config, texts: Sequence[str]) -> Config:
    """``config`` with ``section.key=value`` strings applied."""
    merged: Any = asdict(config)
    for text in texts:
        merged = _merge(merged, parse_override(text))
    return config_from_mapping(merged, "--set")


def parse_override(text: str) -> dict[str, Any]:
    """``a.b=1`` -> ``{"a": {"b": 1}}``. Raises: ValueError for another form."""
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise ValueError(f"--set {text}: wanted section.key=value")
    result: Any = yaml.safe_load(value)
    for part in reversed(key.strip().split(".")):
        result = {part: result}
    return result


def _read_merged(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The file with its ``__BASE__`` parents below it."""
    if path.resolve() in seen:
        raise ValueError(f"config {path}: __BASE__ names itself through {seen[-1]}")
    values = _read_own(path, str(seen[-1]) if seen else "")
    bases = values.pop("__BASE__", [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        merged = _merge(merged, _read_merged(path.parent / base, (*seen, path.resolve())))
    return _merge(merged, values)


def _read_own(path: Path, namer: str) -> dict[str, Any]:
    """What the file itself says; ``namer`` is who names it, for the message if it is missing."""
    if not path.is_file():
        raise FileNotFoundError(
            f"config {path}: no such file" + (f" (named by {namer})" if namer else "")
        )
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"config {path}: not valid YAML: {error}") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ValueError(
            f"config {path}: wanted sections at the top level, got {type(values).__name__}"
        )
    train = values.get("train")
    distill = train.get("distill") if isinstance(train, dict) else None
    if isinstance(distill, dict) and isinstance(distill.get("recipe"), str) and distill["recipe"]:
        distill["recipe"] = str(path.parent / distill["recipe"])
    return values


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key written twice, and reads 1e-3 as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(k, deep=True) for k, _ in node.value]
        twice = [k for i, k in enumerate(keys) if k in keys[:i]]
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {twice[0]!r} stands twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


def _merge(below: Any, above: Any) -> Any:
    """``above`` over ``below``: mappings merge, anything else replaces.

    A data-set description with another ``format`` replaces too: its keys would mean nothing there.
    """
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    if "format" in above and above["format"] != below.get("format"):
        return above
    return {**below, **{key: _merge(below.get(key), value) for key, value in above.items()}}


def _build(kind: type, values: Any, where: str, prefix: str) -> Any:
    """An instance of dataclass ``kind``, every key and type checked."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: {prefix or 'top level'} wanted a section, got {values!r}")
    known = {f.name: f for f in fields(kind)}
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, 1)
            hint = (
                f", did you mean {prefix}{close[0]}?"
                if close
                else f"; known are {', '.join(known)}"
            )
            raise ValueError(f"{where}: unknown key {prefix}{key}{hint}")
    hints = typing.get_type_hints(kind)
    return kind(
        **{
            key: _convert(hints[key], value, where, prefix + str(key))
            for key, value in values.items()
        }
    )


def _convert(kind: Any, value: Any, where: str, name: str) -> Any:
    """``value`` as the type hint ``kind``; ints serve as floats, numbers in text (``1e-3``) too."""
    if is_dataclass(kind):
        return _build(kind, value, where, name + ".")
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _convert(
            next(a for a in typing.get_args(kind) if a is not type(None)), value, where, name
        )
    if origin is list:
        inner = typing.get_args(kind)[0]
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where}: {name} wanted a list, got {value!r}")
        return [_convert(inner, v, where, f"{name}[{i}]") for i, v in enumerate(value)]
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    if kind is list and isinstance(value, tuple):
        return list(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{where}: {name} wanted {kind.__name__}, got {value!r}")
    return value

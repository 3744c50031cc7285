"""Translation of a MindYOLO 0.5 YOLOX recipe: the counterpart of each key, or the reason why it has
none.

Facts about MindYOLO come from its ``train.py``, ``optim``, ``utils/callback.py``,
``data/dataset.py`` and ``models/losses/yolox_loss.py``.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mindyolo_ext.cli import mindyolo
from mindyolo_ext.errors import ConfigError, shown

# SHA-256 of backbone and head as JSON, from configs/yolox of versions 0.1 to 0.5 -> whether
# convolutions are depthwise, whether the backbone is Darknet-53
_LAYERS = {
    "8a1a4ea9c45a6997": (False, False),
    "c874e71c52424867": (True, False),
    "22e56002de4bce8a": (False, True),
}
# Behavior of MindYOLO that differs from the defaults here
_ALWAYS: dict[str, tuple[Any, str]] = {
    "train.loss.area": ("box_or_center", "the nearer of the two SimOTAs: docs/yolox.md"),
    "train.multi_scale": ([], "one input size"),
    "train.ema_warmup": (2000, "its moving average"),
    "data.worker_kind": ("process", "its loader"),
    "eval.multi_label": (True, "its NMS"),
    "eval.max_detections": (300, "its NMS"),
    "eval.clip": (True, "its NMS"),
}
# Defaults of MindYOLO's flags and functions, used if the recipe does not have the key
_DEFAULTS: dict[str, Any] = {
    "img_size": 640,
    "epochs": 300,
    "per_batch_size": 32,
    "accumulate": 1,
    "ema": True,
    "clip_grad": False,
    "overflow_still_update": True,
    "ms_loss_scaler": "static",
    "ms_loss_scaler_value": 1024.0,
    "sync_bn": False,
    "seed": 2,
    "run_eval": False,
    "conf_thres": 0.001,
    "iou_thres": 0.65,
    "optimizer.optimizer": "momentum",
    "optimizer.momentum": 0.9,
    "optimizer.nesterov": False,
    "optimizer.gp_weight_decay": 0.0,
    "optimizer.warmup_epochs": 0,
    "optimizer.cooldown_epochs": 0,
    "optimizer.by_epoch": True,
    "loss.name": "",
}
# Keys with a setting of the same meaning here
_PLAIN = {
    "epochs": "train.epochs",
    "sync_bn": "train.sync_bn",
    "seed": "train.seed",
    "accumulate": "train.optimizer.accumulate",
    "run_eval": "train.run_eval",
    "run_eval_interval": "train.eval_interval",
    "log_interval": "train.log_interval",
    "conf_thres": "eval.conf_thres",
    "iou_thres": "eval.iou_thres",
    "weight": "train.weight",
    "ms_amp_level": "train.amp_level",
    "ms_loss_scaler": "train.loss_scaler",
    "ms_loss_scaler_value": "train.loss_scale",
    "ms_enable_graph_kernel": "train.graph_kernel",
    "precision_mode": "train.precision_mode",
    "optimizer.momentum": "train.optimizer.momentum",
    "optimizer.nesterov": "train.optimizer.nesterov",
    "optimizer.warmup_epochs": "train.schedule.warmup_epochs",
    "optimizer.min_warmup_step": "train.schedule.warmup_min_steps",
    "optimizer.warmup_momentum": "train.schedule.warmup_momentum",
    "optimizer.cooldown_epochs": "train.schedule.flat_epochs",
    "loss.use_l1": "train.loss.l1",
    "data.nc": "data.num_classes",
    "data.num_parallel_workers": "data.workers",
    "opencv_threads_num": "data.opencv_threads",
    "recompute": "train.recompute",
}
# Keys that are command-line flags here, not part of a recipe
_COMMAND = ("device_target", "is_parallel", "ms_mode", "save_dir", "log_level")
_SAME_LAYERS = 10  # the first layers have the same numbers in both programs
# Keys that have no effect on MindYOLO's YOLOX
_IDLE = {
    "data.dataset_name": "MindYOLO does not read it",
    "data.test_set": "MindYOLO does not read it; to evaluate it here, set data.test and use "
    "--split test",
    "loss.input_size": "the loss takes the size of the images",
    "network.input_size": "input.size sets it",
    "optimizer.warmup_bias_lr": "MindYOLO's YOLOX warms up biases like all other parameters",
}


@dataclass
class Translation:
    """A recipe in translation.

    Args:
        model: registry name here.
        settings: settings of our recipe, by dotted key.
        rows: (MindYOLO's key and value, our key and value, remark), one per MindYOLO key.
        left_out: MindYOLO keys without a counterpart here.
    """

    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def put(self, key: str, value: Any, ours: Mapping[str, Any], remark: str = "") -> None:
        """Translate ``key`` into the settings ``ours``."""
        self.settings.update(ours)
        here = ", ".join(f"{name}: {shown(json.dumps(what), 60)}" for name, what in ours.items())
        self.rows.append((_said(key, value), here, remark))

    def same(self, key: str, value: Any, remark: str) -> None:
        """Record that the value of ``key`` matches the behavior here."""
        self.rows.append((_said(key, value), "same behavior", remark))

    def idle(self, key: str, value: Any, remark: str) -> None:
        """Record that ``key`` has no effect here."""
        self.rows.append((_said(key, value), "no effect here", remark))

    def leave(self, key: str, value: Any, reason: str) -> None:
        """Record that ``key`` has no counterpart here."""
        self.rows.append((_said(key, value), "NOT TRANSLATED", reason))
        self.left_out.append(key)


def translate(recipe: Mapping[str, Any], where: str) -> Translation:
    """Translate a MindYOLO recipe that is merged with its parents.

    Raises: ConfigError for a network that is not one of MindYOLO's YOLOX models.
    """
    made = Translation(_model(recipe, where))
    made.settings["model.name"] = made.model
    layers = "network: model_name, depth_multiple, width_multiple, backbone, head"
    made.rows.append((layers, f"model.name: {made.model}", "recognized by layers and factors"))
    for key, (value, reason) in _ALWAYS.items():
        made.settings[key] = value
        made.rows.append(("(always)", f"{key}: {json.dumps(value)}", reason))
    stages, given = _Stages(), _flat(recipe)
    absent = {key: value for key, value in _DEFAULTS.items() if key not in given}
    for key, value in [*given.items(), *absent.items()]:
        try:
            _one_key(made, stages, recipe, key, value)
        except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
            raise ConfigError(
                f"{where}: {key}: {shown(repr(value))} is not a value that MindYOLO takes ({error})"
            ) from error
    for key in absent:
        made.rows = [
            _as_default(row) if row[0] == _said(key, absent[key]) else row for row in made.rows
        ]
    stages.finish(made)
    return made


def _as_default(row: tuple[str, str, str]) -> tuple[str, str, str]:
    """Mark the row of a key that the recipe does not have."""
    return f"(default) {row[0]}", *row[1:]


def _said(key: str, value: Any) -> str:
    return f"{key}: {shown(json.dumps(value, default=str), 50)}"


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten the recipe to dotted keys; lists and transforms are not split."""
    found = {}
    for key, value in recipe.items():
        if isinstance(value, Mapping) and key in ("optimizer", "loss", "data"):
            found |= {f"{key}.{inner}": what for inner, what in value.items()}
        elif key == "network":
            known = ("model_name", "depth_multiple", "width_multiple", "backbone", "head")
            found |= {f"network.{k}": v for k, v in value.items() if k not in known}
        else:
            found[key] = value
    return found


def _optimizer_of(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    found = recipe.get("optimizer")
    return found if isinstance(found, Mapping) else {}


def _model(recipe: Mapping[str, Any], where: str) -> str:
    """Return our name for the network with these layer lists and factors."""
    from mindyolo_ext.models.registry import family

    network = recipe.get("network")
    if not isinstance(network, Mapping):
        raise ConfigError(f"{where}: wanted a MindYOLO recipe, with the section network")
    name = network.get("model_name")
    if name != "yolox":
        raise ConfigError(
            f"{where}: network.model_name is {shown(name)}; only recipes of yolox can be translated"
        )
    layers = json.dumps([network.get("backbone"), network.get("head")], default=str)
    kind = _LAYERS.get(hashlib.sha256(layers.encode()).hexdigest()[:16])
    factors = network.get("depth_multiple"), network.get("width_multiple")
    for model, variant in family("yolox").variants.items():
        scale = variant.scale
        same = kind == (scale.depthwise, scale.darknet)
        if same and factors == (scale.depth, scale.width):
            return model
    what = "network.backbone and head are" if kind is None else f"depth and width {factors} are"
    raise ConfigError(
        f"{where}: {what} not of a YOLOX model here; networks are written in Python, see "
        "docs/adding_a_family.md"
    )


def _one_key(
    made: Translation, stages: "_Stages", recipe: Mapping[str, Any], key: str, value: Any
) -> None:
    """Translate one key and add a row for it."""
    flags = {flag.name: flag for flag in mindyolo.FLAGS if "train" in flag.verbs}
    if key in _HANDLERS:
        _HANDLERS[key](made, stages, recipe, value)
    elif key in _PLAIN:
        made.put(key, value, {_PLAIN[key]: value})
    elif key in _COMMAND:
        made.leave(key, value, f"not part of a recipe: pass --{key} to `mindyolo-ext train`")
    elif key in _IDLE:
        made.idle(key, value, _IDLE[key])
    elif key in flags:
        flag = flags[key]
        if flag.changes_nothing(value):
            made.same(key, value, "")
        elif not flag.refused:
            made.idle(key, value, flag.sentence)
        else:
            made.leave(key, value, flag.sentence)
    else:
        made.leave(key, value, "not a key of MindYOLO's YOLOX recipes")


# ---- keys with special rules ---------------------------------------------------------------------


def _stride(made: Translation, _s: "_Stages", _r: Mapping, value: Any) -> None:
    if value == [8, 16, 32]:
        made.same("network.stride", value, "")
    else:
        made.leave("network.stride", value, "strides here are 8, 16 and 32")


def _img_size(made: Translation, _s: "_Stages", _r: Mapping, value: Any) -> None:
    size = value if isinstance(value, list) else [value, value]
    made.put("img_size", value, {"input.size": size})


def _per_batch_size(made: Translation, _s: "_Stages", _r: Mapping, value: Any) -> None:
    ours = {"train.per_batch_size": value, "eval.per_batch_size": value}
    made.put("per_batch_size", value, ours)


def _ema(made: Translation, _s: "_Stages", _r: Mapping, value: Any) -> None:
    made.put("ema", value, {"train.ema_decay": 0.9999 if value else 0.0})


def _clip(made: Translation, _s: "_Stages", recipe: Mapping, value: Any) -> None:
    norm = recipe.get("clip_grad_value", 10.0) if value else 0.0
    made.put("clip_grad", value, {"train.optimizer.clip_norm": norm})


def _clip_value(made: Translation, _s: "_Stages", recipe: Mapping, value: Any) -> None:
    counts = recipe.get("clip_grad")
    made.idle("clip_grad_value", value, "part of clip_grad" if counts else "clip_grad is off")


def _auto_accumulate(made: Translation, _s: "_Stages", recipe: Mapping, value: Any) -> None:
    if value:
        batch = recipe.get("nbs", mindyolo.NOMINAL_BATCH)
        made.put("auto_accumulate", value, {"train.optimizer.nominal_batch": batch})
    else:
        made.same("auto_accumulate", value, "")


def _nbs(made: Translation, _s: "_Stages", recipe: Mapping, value: Any) -> None:
    counts = recipe.get("auto_accumulate")
    known = "part of auto_accumulate" if counts else "auto_accumulate is off"
    made.idle("nbs", value, known)


def _single_cls(made: Translation, _s: "_Stages", _r: Mapping, value: Any) -> None:
    _if_wanted(made, "single_cls", value, "data.single_cls")


def _rect(made: Translation, _s: "_Stages", _r: Mapping, value: Any) -> None:
    _if_wanted(made, "rect", value, "train.rectangular")


def _if_wanted(made: Translation, key: str, value: Any, ours: str) -> None:
    """Translate a switch that is off by default."""
    if value:
        made.put(key, value, {ours: True})
    else:
        made.same(key, value, "")


def _freeze(made: Translation, _s: "_Stages", _r: Mapping, value: Any) -> None:
    if not value:
        made.same("freeze", value, "")
    elif (
        made.model != "yolox_darknet53"
        and isinstance(value, list)
        and all(isinstance(layer, int) and 0 <= layer < _SAME_LAYERS for layer in value)
    ):
        made.put("freeze", value, {"train.freeze": value})
    else:
        made.leave("freeze", value, "layers after the backbone have other numbers here: use names")


def _optimizer(made: Translation, _s: "_Stages", _r: Mapping, value: Any) -> None:
    if str(value).lower() in ("momentum", "nesterov", "sgd"):
        made.put("optimizer.optimizer", value, {"train.optimizer.name": "sgd"})
    else:
        made.leave("optimizer.optimizer", value, "MindYOLO itself has only sgd and momentum")


def _loss_scale(made: Translation, _s: "_Stages", _r: Mapping, value: Any) -> None:
    if value == 1:
        made.same("optimizer.loss_scale", value, "")
    else:
        made.leave("optimizer.loss_scale", value, "gradients are not divided a second time here")


def _group_param(made: Translation, _s: "_Stages", _r: Mapping, value: Any) -> None:
    if value == "filter_bias_and_bn":
        made.put("optimizer.group_param", value, {"train.optimizer.groups": "by_kind"})
    else:
        reason = "parameter groups of another family, with separate rates and decay"
        made.leave("optimizer.group_param", value, reason)


def _group_decay(made: Translation, _s: "_Stages", _r: Mapping, value: Any) -> None:
    made.put("optimizer.gp_weight_decay", value, {"train.optimizer.weight_decay": value})


def _weight_decay(made: Translation, _s: "_Stages", recipe: Mapping, value: Any) -> None:
    if "group_param" in _optimizer_of(recipe):
        reason = "norms and biases have no decay here"
        (made.leave if value else made.same)("optimizer.weight_decay", value, reason)
    else:
        ours = {"train.optimizer.weight_decay": value, "train.optimizer.groups": "single"}
        made.put("optimizer.weight_decay", value, ours)


def _lr_scheduler(made: Translation, _s: "_Stages", _r: Mapping, value: Any) -> None:
    if value == "yolox":
        ours = {"train.schedule.decay": "cosine", "train.schedule.warmup_power": 2}
        remark = "the warm-up starts at 0, in MindYOLO at 1 % of the rate"
        made.put("optimizer.lr_scheduler", value, ours, remark)
    else:
        made.leave("optimizer.lr_scheduler", value, "MindYOLO 0.5 has only yolox")


def _lr_init(made: Translation, _s: "_Stages", recipe: Mapping, value: Any) -> None:
    ours = {
        "train.optimizer.lr": value * _optimizer_of(recipe).get("start_factor", 1.0),
        "train.optimizer.lr_per_image": False,
    }
    remark = (
        "for one device; with R ranks MindYOLO sums gradients and this project averages them: use "
        "R times the rate to repeat such a run"
    )
    made.put("optimizer.lr_init", value, ours, remark)


def _start_factor(made: Translation, _s: "_Stages", _r: Mapping, value: Any) -> None:
    made.same("optimizer.start_factor", value, "part of train.optimizer.lr")


def _end_factor(made: Translation, _s: "_Stages", recipe: Mapping, value: Any) -> None:
    ratio = value / _optimizer_of(recipe).get("start_factor", 1.0)
    made.put("optimizer.end_factor", value, {"train.schedule.final_ratio": ratio})


def _by_epoch(made: Translation, _s: "_Stages", _r: Mapping, value: Any) -> None:
    if value is False:
        made.same("optimizer.by_epoch", value, "")
    else:
        reason = "the rate changes every step here; per_epoch would count the warm-up differently"
        made.leave("optimizer.by_epoch", value, reason)


def _loss_name(made: Translation, _s: "_Stages", _r: Mapping, value: Any) -> None:
    if value in ("YOLOXLoss", ""):
        made.put("loss.name", value, {"train.loss.name": "yolox_loss"})
    else:
        made.leave("loss.name", value, "YOLOX trains with its own loss")


def _candidates(made: Translation, _s: "_Stages", _r: Mapping, value: Any) -> None:
    if value == 10:
        made.same("loss.num_candidate_ota", value, "")
    else:
        made.leave("loss.num_candidate_ota", value, "SimOTA takes 10 candidates here")


# ---- data ----------------------------------------------------------------------------------------


def _list_of_names(names: Any) -> Any:
    return list(names.values()) if isinstance(names, Mapping) else names


def _set(split: str) -> Callable[..., None]:
    """Return the handler of ``data.train_set`` or ``data.val_set``."""

    def run(made: Translation, _s: "_Stages", recipe: Mapping, value: Any) -> None:
        key, names = f"data.{split}_set", _list_of_names(recipe["data"].get("names", []))
        folder, _, name = str(value).rpartition("/")
        if isinstance(value, list):
            made.leave(key, value, "several lists: join them into one file")
        elif split == "val" and name == "val2017.txt":
            annotations = os.path.join(folder, "annotations", "instances_val2017.json")
            images = [os.path.join(folder, place) for place in ("images/val2017", "val2017")]
            ours = {"format": "coco", "images": images, "annotations": annotations}
            made.put(key, value, {"data.val": ours}, "evaluated on the json, as in MindYOLO")
        else:
            ours = {"format": "yolo", "images": value, "names": names}
            remark = (
                ""
                if split == "train"
                else "evaluated on the label files; MindYOLO reads "
                "annotations/instances_val2017.json beside the list"
            )
            made.put(key, value, {f"data.{split}": ours}, remark)

    return run


def _names(made: Translation, _s: "_Stages", _r: Mapping, value: Any) -> None:
    made.same("data.names", value, "part of data.train")


def _train_transforms(made: Translation, stages: "_Stages", _r: Mapping, value: Any) -> None:
    key = "data.train_transforms"
    if isinstance(value, Mapping):
        starts = [0]
        for epochs in value.get("stage_epochs", [])[:-1]:
            starts.append(starts[-1] + epochs)
        lists = value.get("trans_list", [])
        for number, (start, steps) in enumerate(zip(starts, lists)):
            stages.at(start)["augment"] = _steps(made, f"{key}[{number}]", steps)
    elif value:
        stages.at(0)["augment"] = _steps(made, key, value)
    else:
        stages.at(0)["augment"] = []
        made.put(key, value, {}, "no augmentation")


def _test_transforms(made: Translation, _s: "_Stages", _r: Mapping, value: Any) -> None:
    _steps(made, "data.test_transforms", value or [], training=False)


def _steps(
    made: Translation, key: str, steps: Sequence[Mapping[str, Any]], *, training: bool = True
) -> list[Any]:
    """Translate a list of MindYOLO's transforms into our augmentations; add a row for each."""
    given: dict[str, dict[str, Any]] = {}
    for step in steps:
        words = dict(step)
        given[str(words.pop("func_name", "?"))] = words
    result = _mosaic(made, key, given) if training else []
    for name, words in given.items():
        place = f"{key}: {name}"
        if training and name == "hsv_augment":
            result.append(_renamed(made, place, words, "hsv", _HSV))
        elif training and name == "fliplr":
            result.append(_renamed(made, place, words, "horizontal_flip", {"prob": "probability"}))
        elif name in _INPUT:
            _input(made, place, name, words)
        elif name not in ("mosaic", "random_perspective", "mixup") or not training:
            made.leave(place, words, "no such step here; docs/data.md lists all of them")
    return result


_HSV = {"prob": "probability", "hgain": "hue", "sgain": "saturation", "vgain": "value"}
_MOVE = ("scale", "translate", "degrees", "shear")


def _renamed(
    made: Translation, place: str, words: Mapping[str, Any], ours: str, names: Mapping[str, str]
) -> dict[str, Any]:
    """Translate a step whose keywords only have other names here."""
    step = {"name": ours, **{names[word]: words[word] for word in words if word in names}}
    made.rows.append((_said(place, words), f"data.augment: {json.dumps(step)}", ""))
    for word in words:
        if word not in names:
            made.leave(f"{place}.{word}", words[word], f"{ours} has no such keyword")
    return step


def _mosaic(made: Translation, key: str, given: Mapping[str, dict[str, Any]]) -> list[Any]:
    """Translate mosaic, perspective and mixup, which are one step here."""
    if "mosaic" not in given and "random_perspective" not in given:
        return []
    mosaic, mixup = given.get("mosaic", {"prob": 0.0}), given.get("mixup")
    inner = [dict(step) for step in mosaic.get("post_transform", [])]
    moves = next((s for s in inner if s.get("func_name") == "random_perspective"), None)
    alone = moves is not None  # only mosaics are warped, as in YOLOX itself
    moves = moves or given.get("random_perspective", {"scale": 0.0, "translate": 0.0})
    step: dict[str, Any] = {"probability": mosaic.get("prob", 1.0)}
    step |= {word: moves[word] for word in _MOVE if word in moves}
    boxes = given.get("label_pad", {}).get("padding_size", 160)
    remark = "new boxes enclose the warped boxes, not the warped outlines"
    if mixup is not None:
        step["mixup_probability"] = mixup.get("prob", 1.0)
        alpha = mixup.get("alpha")
        remark += f"; mixup draws from Beta(32, 32), in MindYOLO with alpha {alpha}"
    if alone:
        spread = moves.get("scale", 0.5)
        step = {"name": "yolox_mosaic", **step, "scale": [1 - spread, 1 + spread]}
        # its second half drops boxes; colors and flips are separate steps
        still = {"hue": 0, "saturation": 0, "value": 0, "flip_probability": 0, "max_boxes": boxes}
        result = [step, {"name": "yolox_hsv_flip", **still}]
    else:
        result = [{"name": "gold_yolo_mosaic", **step, "max_boxes": boxes}]
    names = [name for name in ("mosaic", "random_perspective", "mixup") if name in given]
    made.rows.append((f"{key}: {', '.join(names)}", f"data.augment: {json.dumps(result)}", remark))
    rest = {"prob", "func_name", *_MOVE}
    for word in moves:
        if word not in rest and moves[word]:
            made.leave(f"{key}: random_perspective.{word}", moves[word], "no such keyword here")
    return result


_INPUT = (
    *("letterbox", "label_norm", "label_pad", "image_norm", "image_transpose"),
    "resample_segments",
)


def _input(made: Translation, place: str, name: str, words: Mapping[str, Any]) -> None:
    """Record the steps that the pipeline here applies to every image."""
    if name == "image_norm":
        made.put(place, words, {"input.scale": 1.0 / words.get("scale", 255.0)})
    elif name == "image_transpose":
        color = "rgb" if words.get("bgr2rgb", True) else "bgr"
        made.put(place, words, {"input.color": color})
    elif name == "letterbox":
        ours = {"input.resize": "letterbox", "input.rounding": "down", "input.shrink": "area"}
        remark = (
            "a new network places images top left, MindYOLO in the center; converted weights of "
            "MindYOLO keep the center"
        )
        made.put(place, words, ours, remark)
    elif name == "label_pad":
        made.same(place, words, "labels are padded to the number of boxes that a batch needs")
    else:
        made.same(place, words, "")


# ---- stages --------------------------------------------------------------------------------------


@dataclass
class _Stages:
    """Changes by the epoch at which they start, collected from callbacks and transforms."""

    changes: dict[int, dict[str, Any]] = field(default_factory=dict)

    def at(self, epoch: int) -> dict[str, Any]:
        """Return the changes that start at an epoch, counted from 0."""
        return self.changes.setdefault(epoch, {})

    def finish(self, made: Translation) -> None:
        """Write the changes of epoch 0 into the recipe and the others into its stages."""
        first = self.changes.pop(0, {})
        made.settings["data.augment"] = first.get("augment", [])
        made.settings["train.loss.l1"] = first.get("loss", {}).get("l1", False)
        if "eval_interval" in first:
            made.settings["train.eval_interval"] = first["eval_interval"]
        stages = [{"from_epoch": epoch, **self.changes[epoch]} for epoch in sorted(self.changes)]
        made.settings["train.stages"] = stages


def _callbacks(made: Translation, stages: _Stages, _r: Mapping, value: Any) -> None:
    for callback in value or []:
        words = dict(callback)
        name = words.pop("name", "?")
        place = f"callback: {name}"
        if name == "YoloxSwitchTrain":
            _switch(made, stages, place, words)
        elif name == "EvalWhileTrain":
            _evaluations(made, stages, place, words)
        else:
            made.leave(place, words, "runs are recorded in results.csv and results.png here")


def _switch(made: Translation, stages: _Stages, place: str, words: dict[str, Any]) -> None:
    epoch = int(words.pop("switch_epoch_num", 285))
    if words.pop("is_switch_loss", True):
        stages.at(epoch)["loss"] = {"l1": True}
        made.put(place, epoch, {}, f"train.stages: l1 from epoch {epoch} on, counted from 0")
    else:
        made.same(place, epoch, "switches nothing")
    for word, value in words.items():
        if value:
            made.leave(f"{place}.{word}", value, "augmentations change with data.train_transforms")


def _evaluations(made: Translation, stages: _Stages, place: str, words: dict[str, Any]) -> None:
    lengths, intervals = words.pop("stage_epochs", 0), words.pop("stage_intervals", 1)
    lengths = lengths if isinstance(lengths, list) else [lengths]
    intervals = intervals if isinstance(intervals, list) else [intervals]
    start = 0
    for length, interval in zip(lengths, intervals):
        stages.at(start)["eval_interval"] = interval
        start += length
    made.put(place, intervals, {}, "train.eval_interval, and that of train.stages")
    reasons = {
        "isolated_epochs": "evaluations run at fixed intervals, and after the last epoch",
        "keep_checkpoint_max": "train.keep_best sets how many of the best epochs are kept",
        "eval_last_epoch": "the last epoch is always evaluated",
    }
    for word, value in words.items():
        made.leave(f"{place}.{word}", value, reasons.get(word, "not a keyword of this callback"))


_HANDLERS: dict[str, Callable[[Translation, _Stages, Mapping, Any], None]] = {
    "network.stride": _stride,
    "img_size": _img_size,
    "per_batch_size": _per_batch_size,
    "ema": _ema,
    "clip_grad": _clip,
    "clip_grad_value": _clip_value,
    "auto_accumulate": _auto_accumulate,
    "nbs": _nbs,
    "freeze": _freeze,
    "single_cls": _single_cls,
    "rect": _rect,
    "callback": _callbacks,
    "optimizer.optimizer": _optimizer,
    "optimizer.loss_scale": _loss_scale,
    "optimizer.group_param": _group_param,
    "optimizer.gp_weight_decay": _group_decay,
    "optimizer.weight_decay": _weight_decay,
    "optimizer.lr_scheduler": _lr_scheduler,
    "optimizer.lr_init": _lr_init,
    "optimizer.start_factor": _start_factor,
    "optimizer.end_factor": _end_factor,
    "optimizer.by_epoch": _by_epoch,
    "loss.name": _loss_name,
    "loss.num_candidate_ota": _candidates,
    "data.train_set": _set("train"),
    "data.val_set": _set("val"),
    "data.names": _names,
    "data.train_transforms": _train_transforms,
    "data.test_transforms": _test_transforms,
}

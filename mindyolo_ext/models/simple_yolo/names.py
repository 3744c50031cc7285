"""Names of simple YOLO: parameters have the original's names, its ResNets torchvision's, so only
leaves are translated.
"""

from collections.abc import Mapping

import numpy as np

from mindyolo_ext.checkpoint.names import Ignored, NamesTable, Recognition
from mindyolo_ext.errors import CheckpointError
from mindyolo_ext.models.simple_yolo.variants import STRIDES, VARIANTS

DEFAULT_ANCHORS = 3  # per level
BACKBONE = "backbone."
DARKNET_STEM = "backbone.stage0.0.0.weight"
RESNET_STEM = "conv1.weight"
DEEPEST = "layer4.0.conv1.weight"
LAYERS = ("layer1", "layer2", "layer3", "layer4")
HEAD = "det_head.heads.0.weight"
LAST_HEAD = "det_head.heads.2.weight"  # its input has the channels of the backbone's last map
WHOLE = {HEAD, LAST_HEAD, "spp.conv2.0.weight", "pan.head3.1.0.weight"}
CLASSIFIER = ("backbone.fc.weight", "backbone.fc.bias")
SLOPE = ".activation.weight"  # of ReLUs with a learned slope
BACKBONES = {facts.scale.name: facts.scale for facts in VARIANTS.values()}


class SimpleYOLONames(NamesTable):
    """Names of five backbones of any width; a torchvision ResNet can initialize a backbone.

    Source: ``models/yolo.py``, ``models/darknet.py``, ``models/mresnet.py`` (which channels a
        narrow ResNet keeps) and ``core/base_trainer.py`` (what is stored beside the weights) of the
        original; torchvision ``resnet.py``.
    """

    family = "simple_yolo"
    entry = "state_dict"
    beside = {"cur_epoch": 0, "best_score": 0.0, "optimizer": None, "scheduler": None}

    def recognize(self, tensors: Mapping[str, np.ndarray]) -> list[Recognition]:
        if {RESNET_STEM, DEEPEST, "bn1.running_mean"} <= set(tensors):
            backbone = _resnet(tensors)
            channels = max(
                array.shape[0]
                for name, array in tensors.items()
                if name.startswith("layer4.0.conv")
            )
            return [
                Recognition(
                    f"simple_yolo_{backbone}",
                    None,
                    prefix=BACKBONE,
                    part="backbone",
                    keywords={
                        "channel_sparsity": _sparsity(int(channels), BACKBONES[backbone].channels)
                    },
                )
            ]
        if not set(tensors) >= WHOLE or not (
            DARKNET_STEM in tensors or BACKBONE + DEEPEST in tensors
        ):
            return []
        backbone = (
            "darknet"
            if DARKNET_STEM in tensors
            else _resnet(
                {
                    name.removeprefix(BACKBONE): array
                    for name, array in tensors.items()
                    if name.startswith(BACKBONE)
                }
            )
        )
        keywords: dict[str, object] = {
            "channel_sparsity": _sparsity(
                int(tensors[LAST_HEAD].shape[1]), BACKBONES[backbone].channels
            )
        }
        if any(name.endswith(SLOPE) for name in tensors):
            keywords["act"] = "prelu"
        return [
            Recognition(
                f"simple_yolo_{backbone}", _classes(tensors, DEFAULT_ANCHORS), keywords=keywords
            )
        ]

    def to_target(self, name: str, norms: frozenset[str]) -> str | Ignored:
        if name in CLASSIFIER:
            return Ignored("classifies whole images; the detector has no such layer")
        return super().to_target(name, norms)

    def builder_keywords(
        self, tensors: Mapping[str, np.ndarray], anchors: tuple[float, ...] | None
    ) -> dict[str, object]:
        per_level, rest = (
            divmod(len(anchors), 2 * len(STRIDES)) if anchors is not None else (DEFAULT_ANCHORS, 0)
        )
        if rest or not per_level:
            raise CheckpointError(
                f"simple_yolo: {len(anchors)} anchor numbers, wanted width and height of equally "
                f"many anchors for each of {len(STRIDES)} levels, as 18 for three a level"
            )
        classes = _classes(tensors, per_level) if HEAD in tensors else None
        if HEAD in tensors and classes is None:
            raise CheckpointError(
                f"simple_yolo: {HEAD} has {tensors[HEAD].shape[0]} channels, which {per_level} "
                "anchors per level do not explain; the file has no anchors: set them with --anchors"
            )
        if anchors is None:
            return {}
        pairs = [[float(w), float(h)] for w, h in zip(anchors[::2], anchors[1::2], strict=True)]
        return {"anchors": pairs, **({} if classes is None else {"num_classes": classes})}

    def sliced(
        self,
        tensors: Mapping[str, np.ndarray],
        recognition: Recognition,
        keywords: Mapping[str, object],
    ) -> Mapping[str, np.ndarray]:
        own, wanted = recognition.keywords["channel_sparsity"], keywords["channel_sparsity"]
        if not recognition.part or wanted == own:
            return tensors
        if own != 1:
            raise CheckpointError(
                f"{recognition.model}: the file already has {own:g} of the full width, wanted a "
                f"file of full width to take channel_sparsity {wanted} from"
            )
        return {name: _narrow(name, array, float(wanted)) for name, array in tensors.items()}

    def remarks(
        self,
        recognition: Recognition,
        given: Mapping[str, object],
        *,
        size_given: bool = False,
    ) -> list[str]:
        if recognition.part:
            own = recognition.keywords["channel_sparsity"]
            return (
                []
                if "channel_sparsity" in given
                else [
                    f"a backbone of channel_sparsity {own:g}, as in the file; only a model of that "
                    "width can start from it. For another one convert the file with "
                    "--model_keyword channel_sparsity=WIDTH"
                ]
            )
        if "assignment" in given:
            return []
        anchors, how = (
            ("", "") if "anchors" in given else (" and COCO's anchors", " and --anchors W,H,...")
        )
        return [
            f"the file does not say how it was trained; took assignment nearby_grid{anchors}. With "
            "others the boxes are wrong: set them with --model_keyword assignment=single_grid "
            f"(or all_grid){how}"
        ]


def _resnet(tensors: Mapping[str, np.ndarray]) -> str:
    """Return the name of the ResNet with this state dict. Raises: CheckpointError for other numbers
    of blocks.
    """
    blocks = tuple(
        len({name.split(".")[1] for name in tensors if name.startswith(f"{layer}.")})
        for layer in LAYERS
    )
    bottleneck = "layer1.0.conv3.weight" in tensors
    resnets = {f.title: f.scale for f in VARIANTS.values() if f.scale.name != "darknet"}
    for facts in resnets.values():
        if (facts.blocks, facts.bottleneck) == (blocks, bottleneck):
            return facts.name
    known = "; ".join(
        f"{title} {facts.blocks}{' bottlenecks' if facts.bottleneck else ''}"
        for title, facts in resnets.items()
    )
    raise CheckpointError(
        f"simple_yolo: a ResNet of {blocks} {'bottlenecks' if bottleneck else 'blocks'}, "
        f"wanted one of {known}"
    )


def _sparsity(channels: int, full: int) -> float:
    """Return the factor for which ``int(full * factor)`` is ``channels``: with two decimals if
    possible, else the exact one.

    All widths are ``full`` divided by a power of two, times the factor, rounded down, so the widest
    one determines the others.
    """
    rounded = -(-100 * channels // full) / 100
    return rounded if int(full * rounded) == channels else channels / full


def _classes(tensors: Mapping[str, np.ndarray], per_level: int) -> int | None:
    """Return the number of classes of a head with this many anchors per level; None if its channels
    do not fit.
    """
    values, rest = divmod(int(tensors[HEAD].shape[0]), per_level)
    return values - 5 if not rest and values > 5 else None


def _narrow(name: str, array: np.ndarray, share: float) -> np.ndarray:
    """Take the first outputs and inputs of a kernel, or the first entries of a norm; the first
    kernel keeps its inputs.
    """
    if name.startswith("fc.") or array.ndim == 0:
        return array
    if array.ndim == 4 and name != RESNET_STEM:
        array = array[:, : int(array.shape[1] * share)]
    return np.ascontiguousarray(array[: int(len(array) * share)])


TABLE = SimpleYOLONames()

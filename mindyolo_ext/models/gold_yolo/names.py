"""Names of Gold-YOLO: parameters have the original's names; deployed weights are converted back to
the training form.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mindyolo_ext.checkpoint.names import (
    DEPLOYED,
    FOLDED,
    InputEvidence,
    NamesTable,
    Recognition,
    Unfolded,
)
from mindyolo_ext.errors import CheckpointError
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.gold_yolo.variants import REG_MAX, VARIANTS

MARK = "neck.low_IFM.0.conv.weight"  # YOLOv6, whose other names are equal, does not have this layer
STEMS = {
    "backbone.stem.rbr_dense.conv.weight": "RepVGG",
    "backbone.stem.rbr_reparam.weight": "RepVGG",
    "backbone.stem.block.conv.weight": "convolution",
}
# (channels, kind) of the stem -> registry name
BY_STEM = {
    (facts.scale.channels(64), "convolution" if facts.scale.silu else "RepVGG"): name
    for name, facts in VARIANTS.items()
}
CLASS_HEADS = {"detect.cls_preds_af.0.weight": "fuse_ab", "detect.cls_preds.0.weight": "plain"}
BOX_HEADS = {"fuse_ab": "detect.reg_preds_af.0.weight", "plain": "detect.reg_preds.0.weight"}
DISTILL_HEAD = "detect.reg_preds_lrtb.0.weight"
BINS = REG_MAX + 1  # bins of each distance's distribution
EPSILON = 1e-3  # epsilon of the norms that deployment folds
BRANCH = "was folded into its block's 3x3 kernel; zero"
CONV_BIAS = "was folded into its norm's beta; zero"


class GoldYOLONames(NamesTable):
    """Names of four scales in three forms, as trained or as deployed.

    Source: ``yolov6/models/yolo.py``, ``yolov6/utils/torch_utils.py`` (``fuse_model``),
        ``gold_yolo/switch_tool.py`` (``switch_to_deploy``) and
        ``configs/experiment/eval_640_repro.py`` (the borders) of the original.
    """

    family = "gold_yolo"

    def recognize(self, tensors: Mapping[str, np.ndarray]) -> list[Recognition]:
        stem = next((name for name in STEMS if name in tensors), None)
        head = next((name for name in CLASS_HEADS if name in tensors), None)
        if stem is None or head is None or MARK not in tensors:
            return []
        channels, kind = int(tensors[stem].shape[0]), STEMS[stem]
        if (channels, kind) not in BY_STEM:
            known = "; ".join(f"{name} {wide} {block}" for (wide, block), name in BY_STEM.items())
            raise CheckpointError(
                f"gold_yolo: {channels} {kind} channels in the stem, wanted one of {known}"
            )
        form = CLASS_HEADS[head]
        outputs = tensors[BOX_HEADS[form]].shape[0] if BOX_HEADS[form] in tensors else None
        if outputs != 4 * BINS:
            raise CheckpointError(
                f"gold_yolo: the box head has {outputs or 'no'} channels, wanted {4 * BINS}; "
                "weights trained without the distribution of distances (use_dfl=False) do not fit"
            )
        form = "distill" if DISTILL_HEAD in tensors else form
        return [
            Recognition(
                BY_STEM[channels, kind], int(tensors[head].shape[0]), keywords={"form": form}
            )
        ]

    def unfolded(self, tensors: Mapping[str, np.ndarray]) -> Unfolded:
        result: dict[str, np.ndarray] = {}
        origins: dict[str, str] = {}
        supplied: dict[str, str] = {}
        layers = 0
        for name, array in tensors.items():
            parts = _taken_apart(name, tensors)
            if parts is None:
                result[name] = array
                continue
            layers += name.endswith(".weight")
            for place, value, reason in parts:
                result[place] = value
                if reason:
                    supplied[place] = reason
                else:
                    origins[place] = name
        warning = DEPLOYED.format(layers=layers)
        return Unfolded(result, origins, supplied, (warning,) if layers else ())

    def constants(self, architecture: Mapping[str, Any] | None = None) -> Mapping[str, np.ndarray]:
        bins = np.arange(BINS, dtype=np.float32)
        return {"detect.proj": bins, "detect.proj_conv.weight": bins.reshape(1, BINS, 1, 1)}

    def input_styles(self, recognition: Recognition, usual: InputSpec) -> dict[str, InputSpec]:
        border = VARIANTS[recognition.model].scale.published_border
        return {
            "usual": usual,
            "published": replace(usual, border=border, rounding="down_whole", shrink="area"),
        }

    def input_evidence(
        self, recognition: Recognition, tensors: Mapping[str, np.ndarray]
    ) -> InputEvidence:
        form = recognition.keywords["form"]
        if (form, recognition.num_classes) == (
            VARIANTS[recognition.model].scale.published_form,
            80,
        ):
            return InputEvidence(
                "published", f"{form} head of 80 classes, as the published weights"
            )
        return InputEvidence(
            "usual", f"{form} head of {recognition.num_classes} classes, not the published weights'"
        )


def _taken_apart(
    name: str, tensors: Mapping[str, np.ndarray]
) -> list[tuple[str, np.ndarray, str]] | None:
    """Return (training name, array, reason if the file lacks it) in place of a folded ``name``;
    None if it is not folded.
    """
    layer, _, leaf = name.rpartition(".")
    block, _, last = layer.rpartition(".")
    if leaf not in ("weight", "bias"):
        return None
    array = tensors[name]
    if last == "rbr_reparam":
        return list(
            _branches(block, array)
            if leaf == "weight"
            else _identity_norm(f"{block}.rbr_dense.bn", array)
        )
    if last != "conv" or f"{block}.conv.bias" not in tensors or f"{block}.bn.weight" in tensors:
        return None
    if leaf == "weight":
        return [(name, array, "")]
    parts = list(_identity_norm(f"{block}.bn", array))
    if block.endswith(".block"):  # the convolution has a bias in training form, too
        parts.append((name, np.zeros_like(array), CONV_BIAS))
    return parts


def _identity_norm(layer: str, bias: np.ndarray) -> Iterator[tuple[str, np.ndarray, str]]:
    """Build a norm that only adds ``bias``, the one of its arrays that is in the file."""
    yield f"{layer}.weight", np.ones_like(bias), FOLDED
    yield f"{layer}.bias", bias, ""
    yield from _statistics(layer, bias, FOLDED)


def _statistics(layer: str, like: np.ndarray, reason: str) -> Iterator[tuple[str, np.ndarray, str]]:
    """Return mean 0, and the variance that becomes 1 when the norm adds its epsilon."""
    yield f"{layer}.running_mean", np.zeros_like(like), reason
    yield f"{layer}.running_var", np.full_like(like, 1 - EPSILON), reason


def _branches(block: str, kernel: np.ndarray) -> Iterator[tuple[str, np.ndarray, str]]:
    """Build a RepVGG block whose 3x3 branch is ``kernel`` (O, I, 3, 3) and whose other branches are
    zero.
    """
    yield f"{block}.rbr_dense.conv.weight", kernel, ""
    yield f"{block}.rbr_1x1.conv.weight", np.zeros_like(kernel[:, :, :1, :1]), BRANCH
    layers = [f"{block}.rbr_1x1.bn"]
    if kernel.shape[0] == kernel.shape[1]:  # blocks that downsample also widen
        layers.append(f"{block}.rbr_identity")
    zeros = np.zeros_like(kernel[:, 0, 0, 0])
    for layer in layers:
        yield f"{layer}.weight", zeros, BRANCH
        yield f"{layer}.bias", zeros, BRANCH
        yield from _statistics(layer, zeros, BRANCH)


TABLE = GoldYOLONames()

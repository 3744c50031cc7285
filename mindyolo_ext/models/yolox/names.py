"""Names of YOLOX: parameters have the original's names; MindYOLO numbers the modules instead, see
``MINDYOLO_NAMES``.
"""

from collections.abc import Mapping

import numpy as np

from mindyolo_ext.checkpoint.names import (
    InputEvidence,
    NamesTable,
    Recognition,
    renamed,
)
from mindyolo_ext.errors import CheckpointError
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.yolox.variants import VARIANTS, YOLOX_INPUTS

# (channels of the stem, bottlenecks of dark3, depthwise convolutions) -> registry name
CSP_VARIANTS = {
    (facts.scale.stem_channels, 3 * facts.scale.backbone_repeats, facts.scale.depthwise): name
    for name, facts in VARIANTS.items()
    if not facts.scale.darknet
}
STEMS = {"csp": "backbone.backbone.stem.conv", "darknet53": "backbone.backbone.stem.0"}
CLASS_HEAD = "head.cls_preds.0.weight"


def _numbered(*modules: tuple[int | str, str]) -> dict[str, str]:
    """Map MindYOLO's name to the original's, given the index in MindYOLO's list and the original's
    module.
    """
    return {f"model.model.{place}": module for place, module in modules}


def _residual(place: int | str, module: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Map a residual block, whose two layers MindYOLO calls conv1 and conv2."""
    return (f"{place}.conv1", f"{module}.layer1"), (f"{place}.conv2", f"{module}.layer2")


def _residuals(place: int, module: str, count: int) -> list[tuple[str, str]]:
    """Map ``count`` residual blocks: MindYOLO numbers them from 0 in a separate list, the original
    from 1.
    """
    return [
        row
        for index in range(count)
        for row in _residual(f"{place}.{index}", f"{module}.{1 + index}")
    ]


# Prefixes of names; the rest of a name is the same on both sides. Missing numbers have no
# parameters.
MINDYOLO_NAMES = {
    "csp": _numbered(
        (0, "backbone.backbone.stem"),
        (1, "backbone.backbone.dark2.0"),
        (2, "backbone.backbone.dark2.1"),
        (3, "backbone.backbone.dark3.0"),
        (4, "backbone.backbone.dark3.1"),
        (5, "backbone.backbone.dark4.0"),
        (6, "backbone.backbone.dark4.1"),
        (7, "backbone.backbone.dark5.0"),
        (8, "backbone.backbone.dark5.1"),
        (9, "backbone.backbone.dark5.2"),
        (10, "backbone.lateral_conv0"),
        (13, "backbone.C3_p4"),
        (14, "backbone.reduce_conv1"),
        (17, "backbone.C3_p3"),
        (18, "backbone.bu_conv2"),
        (20, "backbone.C3_n3"),
        (21, "backbone.bu_conv1"),
        (23, "backbone.C3_n4"),
        (24, "head"),
    ),
    "darknet53": _numbered(
        (0, "backbone.backbone.stem.0"),
        (1, "backbone.backbone.stem.1"),
        *_residual(2, "backbone.backbone.stem.2"),
        (3, "backbone.backbone.dark2.0"),
        *_residuals(4, "backbone.backbone.dark2", 2),
        (5, "backbone.backbone.dark3.0"),
        *_residuals(6, "backbone.backbone.dark3", 8),
        (7, "backbone.backbone.dark4.0"),
        *_residuals(8, "backbone.backbone.dark4", 8),
        (9, "backbone.backbone.dark5.0"),
        *_residuals(10, "backbone.backbone.dark5", 4),
        (11, "backbone.backbone.dark5.5"),
        (12, "backbone.backbone.dark5.6"),
        (13, "backbone.backbone.dark5.7"),
        (14, "backbone.backbone.dark5.8"),
        (15, "backbone.backbone.dark5.9"),
        (16, "backbone.out1_cbl"),
        (19, "backbone.out1.0"),
        (20, "backbone.out1.1"),
        (21, "backbone.out1.2"),
        (22, "backbone.out1.3"),
        (23, "backbone.out1.4"),
        (24, "backbone.out2_cbl"),
        (27, "backbone.out2.0"),
        (28, "backbone.out2.1"),
        (29, "backbone.out2.2"),
        (30, "backbone.out2.3"),
        (31, "backbone.out2.4"),
        (32, "head"),
    ),
}

# Variance of a pixel by input style. First kernels of published weights on COCO photos give 3900 to
# 4800 for 0..255, 1.2 to 1.4 after ImageNet's normalization and 0.06 to 0.07 for 0..1; folded
# weights 3100 and 4.3 for the first two.
PIXEL_VARIANCES = {"official": (500.0, 30000.0), "legacy": (0.5, 15.0), "mindyolo": (0.01, 0.25)}
PIXELS = {"official": "0..255", "legacy": "ImageNet-normalized", "mindyolo": "0..1"}


class YOLOXNames(NamesTable):
    """Names of seven scales in two programs, recognized by the stem, the repeated blocks and the
    depthwise convolutions.

    Source: ``yolox/models`` of the original; MindYOLO's ``configs/yolox`` for the numbers of its
        modules.
    """

    family = "yolox"

    def recognize(self, tensors: Mapping[str, np.ndarray]) -> list[Recognition]:
        numbered = any(name.startswith("model.model.") for name in tensors)
        found = []
        for kind, stem in STEMS.items():
            renames = MINDYOLO_NAMES[kind] if numbered else {}
            shapes = {renamed(name, renames): array.shape for name, array in tensors.items()}
            if f"{stem}.conv.weight" in shapes and CLASS_HEAD in shapes:
                model = _csp_variant(shapes) if kind == "csp" else "yolox_darknet53"
                found.append(Recognition(model, int(shapes[CLASS_HEAD][0]), renames=renames))
        return found

    def input_styles(self, recognition: Recognition, usual: InputSpec) -> dict[str, InputSpec]:
        return {style: make(usual.size) for style, make in YOLOX_INPUTS.items()}

    def input_evidence(
        self, recognition: Recognition, tensors: Mapping[str, np.ndarray]
    ) -> InputEvidence:
        if recognition.renames:
            return InputEvidence("mindyolo", "MindYOLO's names")
        stem = STEMS["darknet53" if recognition.model == "yolox_darknet53" else "csp"]
        variance = _pixel_variance(stem, tensors)
        if variance is None:
            return InputEvidence("", "the first layer was not trained")
        for style, (low, high) in PIXEL_VARIANCES.items():
            if low < variance < high:
                return InputEvidence(
                    style, f"the first layer fits {PIXELS[style]} pixels: variance {variance:.4g}"
                )
        return InputEvidence("", f"the first layer fits no known pixels: variance {variance:.4g}")


def _csp_variant(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return the registry name. Raises: CheckpointError if the sizes fit no scale."""
    channels = shapes[f"{STEMS['csp']}.conv.weight"][0]
    repeats = sum(
        name.startswith("backbone.backbone.dark3.1.m.") and name.endswith(".conv1.conv.weight")
        for name in shapes
    )
    depthwise = "backbone.bu_conv1.dconv.conv.weight" in shapes
    model = CSP_VARIANTS.get((channels, repeats, depthwise))
    if model is None:
        known = "; ".join(
            f"{name} {wide}, {deep}{', depthwise' if thin else ''}"
            for (wide, deep, thin), name in CSP_VARIANTS.items()
        )
        raise CheckpointError(
            f"yolox: {channels} channels in the stem, {repeats} bottlenecks in dark3"
            f"{', depthwise' if depthwise else ''}; wanted one of {known}"
        )
    return model


def _pixel_variance(stem: str, tensors: Mapping[str, np.ndarray]) -> float | None:
    """Return the median, over the stem's kernels, of output variance divided by squared norm; None
    for untrained weights.

    The ratio does not depend on the magnitude of a kernel, only on the input. If a batch norm was
    folded into the kernels, its variance is 1, so the ratio also contains the squared scale of the
    norm, which is a few units.
    """
    leaves = (
        ("weight", "bias", "running_mean", "running_var"),
        ("gamma", "beta", "moving_mean", "moving_variance"),
    )
    names = next((group for group in leaves if f"{stem}.bn.{group[3]}" in tensors), None)
    if f"{stem}.conv.bias" in tensors:  # the norm was folded into the kernels
        return _variance_over_squares(tensors[f"{stem}.conv.weight"], 1.0)
    if names is None or any(f"{stem}.bn.{leaf}" not in tensors for leaf in names):
        return None
    shift, mean, variance = (
        np.asarray(tensors[f"{stem}.bn.{leaf}"], np.float64) for leaf in names[1:]
    )
    if not shift.any() and not mean.any():
        return None
    return _variance_over_squares(tensors[f"{stem}.conv.weight"], variance)


def _variance_over_squares(kernels: np.ndarray, variance: np.ndarray | float) -> float | None:
    """Return the median of variance divided by squared norm of the kernels; None if all are
    zero.
    """
    kernels = np.asarray(kernels, np.float64)
    squares = (kernels**2).sum(tuple(range(1, kernels.ndim)))
    used = squares > 0
    ratios = np.broadcast_to(variance, squares.shape)[used] / squares[used]
    return float(np.median(ratios)) if used.any() else None


TABLE = YOLOXNames()

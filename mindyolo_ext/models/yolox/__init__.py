"""YOLOX: anchor-free heads, SimOTA; seven scales."""

from mindyolo_ext.contracts import Family
from mindyolo_ext.models.yolox.variants import PROTOCOLS, VARIANTS

FAMILY = Family(
    name="yolox",
    title="YOLOX",
    variants=VARIANTS,
    losses=("yolox_loss",),
    augmentations=("yolox_hsv_flip", "yolox_mosaic"),
    paper="https://arxiv.org/abs/2107.08430",
    repository="https://github.com/Megvii-BaseDetection/YOLOX",
    terms="Apache-2.0",
    verified="published Nano weights: same AP; training of all 7 scales",
    input_styles=("official", "legacy", "mindyolo"),
    has_original=True,
    protocols=PROTOCOLS,
)

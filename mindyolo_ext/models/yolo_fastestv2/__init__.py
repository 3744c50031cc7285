"""Yolo-FastestV2: a detector on ShuffleNetV2 with a quarter of a million parameters."""

from mindyolo_ext.contracts import Family
from mindyolo_ext.models.yolo_fastestv2.variants import PROTOCOLS, VARIANTS

FAMILY = Family(
    name="yolo_fastestv2",
    title="Yolo-FastestV2",
    variants=VARIANTS,
    losses=("yolo_fastestv2_loss",),
    augmentations=("contrast_brightness",),
    repository="https://github.com/dog-qiuqiu/Yolo-FastestV2",
    terms="no license given: ask the author before you use or pass on its weights",
    verified="published weights: same AP and own metric; training",
    has_original=True,
    protocols=PROTOCOLS,
)

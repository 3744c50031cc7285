"""Gold-YOLO: gather-and-distribute neck, two training steps; four scales."""

from mindyolo_ext.contracts import Family
from mindyolo_ext.models.gold_yolo.variants import PROTOCOLS, VARIANTS

FAMILY = Family(
    name="gold_yolo",
    title="Gold-YOLO",
    variants=VARIANTS,
    losses=("gold_yolo_loss", "gold_yolo_distill_loss"),
    augmentations=("gold_yolo_mosaic",),
    paper="https://arxiv.org/abs/2309.11331",
    repository="https://github.com/huawei-noah/Efficient-Computing/tree/master/Detection/Gold-YOLO",
    terms="GPL-3.0; no other terms are given for its weights",
    verified="4 scales in all forms of the head, both training steps",
    input_styles=("usual", "published"),
    has_original=True,
    protocols=PROTOCOLS,
)

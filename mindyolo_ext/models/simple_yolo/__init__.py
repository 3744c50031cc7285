"""The simple YOLO: ResNet or Darknet backbones of any width, three label assignments."""

from mindyolo_ext.contracts import Family
from mindyolo_ext.models.simple_yolo.variants import PROTOCOLS, VARIANTS

FAMILY = Family(
    name="simple_yolo",
    title="simple YOLO",
    variants=VARIANTS,
    losses=("simple_yolo_loss",),
    augmentations=(
        "color_jitter",
        "simple_yolo_mosaic",
        "simple_yolo_perspective",
        "simple_yolo_scale_crop",
    ),
    repository="https://github.com/zh320/simple-yolo-pytorch",
    terms="Apache-2.0; torchvision's ImageNet weights have terms of their own",
    verified="12 networks, 3 label assignments",
    has_original=True,
    protocols=PROTOCOLS,
)

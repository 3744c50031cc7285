"""DynamicDet: two cascaded detectors and a router that lets easy images skip the second."""

from mindyolo_ext.contracts import Family
from mindyolo_ext.models.dynamicdet.variants import PROTOCOLS, VARIANTS

FAMILY = Family(
    name="dynamicdet",
    title="DynamicDet",
    variants=VARIANTS,
    losses=("dynamicdet_loss", "dynamicdet_router_loss"),
    augmentations=("dynamicdet_mosaic", "dynamicdet_paste_in"),
    paper="https://arxiv.org/abs/2304.05552",
    repository="https://github.com/VDIGPKU/DynamicDet",
    terms="academic use only",
    verified="3 networks with both exits, the router, both training steps",
    has_original=True,
    protocols=PROTOCOLS,
)

"""Names of Yolo-FastestV2: parameters have the original's names, so only leaves are translated."""

from collections.abc import Mapping

import numpy as np

from mindyolo_ext.checkpoint.names import NamesTable, Recognition
from mindyolo_ext.errors import CheckpointError
from mindyolo_ext.models.yolo_fastestv2.variants import COCO_ANCHORS, STRIDES, VARIANTS

_LEVELS = len(STRIDES)
_DEFAULT_ANCHORS = len(COCO_ANCHORS) // _LEVELS  # per level
_BACKBONE_ONLY = {
    "first_conv.0.weight",
    "stage2.0.branch_proj.0.weight",
    "stage3.7.branch_main.0.weight",
    "stage4.3.branch_main.5.weight",
}
_COCO_CLASSES = 80  # classes of the published weights, whose anchors and size are the family's
_WHOLE = {"backbone." + name for name in _BACKBONE_ONLY} | {
    "fpn.conv1x1_2.0.weight",
    "fpn.cls_head_3.block.0.weight",
    "output_reg_layers.weight",
    "output_obj_layers.weight",
    "output_cls_layers.weight",
}


class YoloFastestV2Names(NamesTable):
    """Names of the one architecture, recognized by its heads; a file with only a backbone holds
    ImageNet weights.

    Source: ``model/detector.py`` and ``model/backbone/shufflenetv2.py`` of the original.
    """

    family = "yolo_fastestv2"

    def recognize(self, tensors: Mapping[str, np.ndarray]) -> list[Recognition]:
        if set(tensors) >= _WHOLE:
            return [
                Recognition("yolo_fastestv2", int(tensors["output_cls_layers.weight"].shape[0]))
            ]
        if set(tensors) >= _BACKBONE_ONLY and not any(
            name.startswith(("fpn.", "output_")) for name in tensors
        ):
            return [Recognition("yolo_fastestv2", None, prefix="backbone.", part="backbone")]
        return []

    def builder_keywords(
        self, tensors: Mapping[str, np.ndarray], anchors: tuple[float, ...] | None
    ) -> dict[str, object]:
        head = tensors.get("output_obj_layers.weight")
        count = int(head.shape[0]) if head is not None else None
        if anchors is None:
            if count not in (None, _DEFAULT_ANCHORS):
                raise CheckpointError(
                    f"yolo_fastestv2: the head has {count} anchors per level, COCO's "
                    f"{_DEFAULT_ANCHORS} do not fit; the file has no anchors: set them with --data "
                    "or --anchors"
                )
            return {}
        if len(anchors) % (2 * _LEVELS) or (
            count is not None and len(anchors) != 2 * _LEVELS * count
        ):
            raise CheckpointError(
                f"yolo_fastestv2: {len(anchors)} anchor numbers, wanted width and height of "
                f"{count or 'equally many'} anchors for each of {_LEVELS} levels"
            )
        return {
            "anchors": [
                [float(w), float(h)] for w, h in zip(anchors[::2], anchors[1::2], strict=True)
            ]
        }

    def remarks(
        self,
        recognition: Recognition,
        given: Mapping[str, object],
        *,
        size_given: bool = False,
    ) -> list[str]:
        if recognition.part or recognition.num_classes == _COCO_CLASSES:
            return []
        wants = []
        if "anchors" not in given:
            wants.append("COCO's anchors")
        if not size_given:
            wants.append("an input of {}x{}".format(*VARIANTS["yolo_fastestv2"].input_size))
        if not wants:
            return []
        return [
            f"the file does not say how it was trained; took {' and '.join(wants)}. Trained with "
            "others, its boxes are wrong: convert it with --data FILE.data, the file it was "
            "trained with (or --anchors W,H,... for the anchors alone)"
        ]


TABLE = YoloFastestV2Names()

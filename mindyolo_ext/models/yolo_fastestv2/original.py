"""Build the original Yolo-FastestV2 for ``verify``; runs in the user's own PyTorch, inside the
user's clone.
"""

from stand_ins import replace_missing


def build(settings):
    """Build the original's network without weights; ``settings`` holds num_classes and anchors
    (pairs, two levels).
    """
    replace_missing({"torchsummary": ()})  # the clone imports it, but its network does not use it
    from model.detector import Detector

    return Detector(settings["num_classes"], len(settings["architecture"]["anchors"]) // 2, True)


def outputs(result):
    """Return the network's result by the names of ``reference.HEADS``."""
    return dict(
        zip(("reg_s16", "obj_s16", "cls_s16", "reg_s32", "obj_s32", "cls_s32"), result, strict=True)
    )

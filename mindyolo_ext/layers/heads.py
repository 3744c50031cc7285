"""Prediction heads that several families share."""

import math

from mindyolo_ext.backend import Tensor, float32, nn, ops
from mindyolo_ext.backend.initial import constant
from mindyolo_ext.layers.conv import ConvBNAct, conv2d

PRIOR_PROBABILITY = 0.01  # probability of a class before the first step


def in_float32(maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Convert the maps to float32, so that outputs have full precision under mixed precision."""
    found = ()
    for x in maps:
        found = found + (ops.cast(x, float32),)
    return found


class DistanceHead(nn.Cell):
    """On each level: a stem, a convolution for the classes and one for the box, and the form's
    predictors.

    Args:
        in_channels: channels of the three levels.
        num_classes: K.
        box_outputs: channels of the box distribution, 4 sides times its bins.
        form: ``plain``; ``fuse_ab`` with a second, anchor-based branch of three anchors;
            ``distill`` with a second box branch that predicts the distances themselves.

    Shape: three maps, stride 8 first -> raw maps (B, ., h, w) float32, the form's predictors in
        order, of stride 8, then 16, then 32.
    Source: YOLOv6, arXiv:2209.02976 and arXiv:2301.05586.
    """

    def __init__(
        self, in_channels: tuple[int, int, int], num_classes: int, box_outputs: int, form: str
    ):
        super().__init__()
        class_bias = -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY)

        def predictors(outputs: int, bias: float) -> nn.CellList:
            cells = [conv2d(c, outputs, 1, has_bias=True) for c in in_channels]
            for cell in cells:
                cell.weight.set_data(constant(cell.weight.shape, 0.0))
                cell.bias.set_data(constant(cell.bias.shape, bias))
            return nn.CellList(cells)

        self.stems = nn.CellList([ConvBNAct(c, c) for c in in_channels])
        self.cls_convs = nn.CellList([ConvBNAct(c, c, 3) for c in in_channels])
        self.reg_convs = nn.CellList([ConvBNAct(c, c, 3) for c in in_channels])
        self.form = form
        if form == "fuse_ab":
            self.cls_preds_af, self.reg_preds_af = (
                predictors(num_classes, class_bias),
                predictors(box_outputs, 1.0),
            )
            self.cls_preds_ab, self.reg_preds_ab = (
                predictors(3 * num_classes, class_bias),
                predictors(3 * 4, 1.0),
            )
        else:
            self.cls_preds, self.reg_preds = (
                predictors(num_classes, class_bias),
                predictors(box_outputs, 1.0),
            )
        if form == "distill":
            self.reg_preds_lrtb = predictors(4, 1.0)

    def construct(self, p3: Tensor, p4: Tensor, p5: Tensor) -> tuple[Tensor, ...]:
        return in_float32(self._level(p3, 0) + self._level(p4, 1) + self._level(p5, 2))

    def _level(self, feature: Tensor, level: int) -> tuple[Tensor, ...]:
        x = self.stems[level](feature)
        classes, box = self.cls_convs[level](x), self.reg_convs[level](x)
        if self.form == "fuse_ab":
            return (
                self.cls_preds_af[level](classes),
                self.reg_preds_af[level](box),
                self.cls_preds_ab[level](classes),
                self.reg_preds_ab[level](box),
            )
        found = (self.cls_preds[level](classes), self.reg_preds[level](box))
        if self.form == "distill":
            found = found + (self.reg_preds_lrtb[level](box),)
        return found

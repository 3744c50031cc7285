"""Building blocks of losses, on probabilities, logits and matches."""

from mindyolo_ext.backend import Tensor, float32, ops
from mindyolo_ext.losses.assign.lookup import value_of_class

BACKGROUND = 0.75  # weight of the varifocal term for classes that are not the target's


def focal_cross_entropy(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """Compute focal loss elementwise: binary cross-entropy times ``(1 - exp(-cross-entropy)) **
    gamma``. Source: arXiv:1708.02002.
    """
    # relu - logits * target is exact for target 1, so the entropy is never below 0
    entropy = ops.relu(logits) - logits * target + ops.softplus(-ops.abs(logits))
    if gamma == 0:
        return entropy
    return ops.pow(1.0 - ops.exp(-entropy), gamma) * entropy


def varifocal(classes: Tensor, label: Tensor, matched: Tensor, score: Tensor) -> Tensor:
    """Sum the class term: cross-entropy, weighted by the target score for the target's class and by
    0.75 p^2 elsewhere.

    Shape: probabilities (B, K, A); class, matched 0/1 and target score (B, A) -> ().
    Source: arXiv:2008.13367 in the form of YOLOv6 and Gold-YOLO. As in the original: the weight
        p^2 carries a gradient.
    """
    own = value_of_class(classes, label)
    no = _clamped_log(1.0 - own)
    wanted = -(score * _clamped_log(own) + (1.0 - score) * no) * score
    # summing along the last axis is fastest
    everywhere = ops.sum(classes * classes * _clamped_log(1.0 - classes), 2)
    return ops.sum((wanted + BACKGROUND * own * own * no) * matched) - BACKGROUND * ops.sum(
        everywhere
    )


def _clamped_log(probability: Tensor) -> Tensor:
    """Compute a logarithm that is -100, without gradient, for probability 0, like the limit of
    PyTorch's cross-entropy.
    """
    zero = ops.cast(probability < 1e-37, float32)
    return ops.log(probability + zero) - 100.0 * zero


def divergence(student: Tensor, teacher: Tensor, axis: int) -> Tensor:
    """Compute the Kullback-Leibler divergence of softmax(student) from softmax(teacher), summed
    along ``axis``.

    The logits must differ by less than 80. The form log(1 + sum t (exp(d) - 1 - d)), with t the
    teacher's softmax and d the difference minus its mean under t, has no large terms that cancel.
    Small arguments use series, because ``ops.expm1`` and ``ops.log1p`` are inexact for them on a
    CPU.
    """
    logits = ops.exp(teacher - ops.expand_dims(ops.max(teacher, axis)[0], axis))
    weights = ops.stop_gradient(logits / ops.sum(logits, axis, True))
    change = student - ops.stop_gradient(teacher)
    change = change - ops.sum(weights * change, axis, True)
    small = ops.cast(ops.abs(change) < 0.3, float32)
    near = change * small
    curved = (
        near * near * (1 / 2 + near * (1 / 6 + near * (1 / 24 + near * (1 / 120 + near / 720))))
    )
    excess = ops.sum(weights * (curved + (ops.exp(change) - 1.0 - change) * (1.0 - small)), axis)
    few = ops.cast(excess < 0.03, float32)
    low = excess * few
    return low * (1.0 - low * (1 / 2 - low * (1 / 3 - low * (1 / 4 - low / 5)))) + ops.log(
        1.0 + excess
    ) * (1.0 - few)


def feature_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute the divergence of the spatial softmax of every channel, summed over channels and
    images: (B, C, H, W) -> ().
    """
    shape = student.shape[0] * student.shape[1], -1
    ours = ops.log_softmax(ops.reshape(ops.cast(student, float32), shape), -1)
    theirs = ops.stop_gradient(ops.log_softmax(ops.reshape(ops.cast(teacher, float32), shape), -1))
    return ops.sum(ops.exp(theirs) * (theirs - ours))

"""Helpers that keep matches the same on every device: predictions that are not finite are left out,
ties go to the first value, and no sort key needs more bits than float16 has.

MindSpore documents that ``ops.sort`` of float32 may lose accuracy, and CANN's ``force_fp16`` takes
float16 wherever an operator offers it. So indices are split into digits before they are sorted, and
the values that ``topk`` finds are looked up again in its input.
"""

from mindyolo_ext.backend import Tensor, float32, int32, ops

EXACT = 2048  # float16 holds all whole numbers up to this one
_LARGEST = 3e38


def finite(*parts: Tensor) -> Tensor:
    """Return 1 where tensors of one shape are all finite, else 0, float.

    Frameworks disagree on how NaN compares and where it ends up in ``topk``. So assigners leave
    such predictions out before they compare anything.
    """
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return ops.cast(ops.isfinite(total), float32)


def filled(usable: Tensor, parts: tuple[Tensor, ...], value: float) -> tuple[Tensor, ...]:
    """Replace entries of tensors by ``value`` wherever ``usable`` is 0."""
    return tuple(ops.where(usable > 0.5, part, value) for part in parts)


def finite_targets(targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return targets (B, M, 5) and mask (B, M), both set to 0 for a box that is not finite."""
    usable = finite(*ops.unbind(targets, 2))
    (rows,) = filled(ops.expand_dims(usable, 2), (targets,), 0.0)
    return rows, mask * usable


def first_largest(
    values: Tensor, number: Tensor, most: int, *, above: float | None = None
) -> tuple[Tensor, Tensor]:
    """Find the largest values along the last axis; ties go to the first.

    The device decides which of several equal values ``topk`` finds, so values equal to the last one
    taken are looked up by their place. A device that compares in float16 takes the same number of
    values, and none that is more than a rounding below the right one.

    Args:
        values, number: see below; no value is NaN.
        most: the largest number, at most C.
        above: only values above this are taken.

    Shape: values (B, M, C), how many to take (B, M, 1) int, at least 1 -> whether each of 2 *
        ``most`` slots is taken, float 0/1, and its place, int, both (B, M, 2 * ``most``). Slots
        that are not taken name some place.
    """
    found, places = largest(values, most)
    ranks = ops.reshape(ops.arange(most, dtype=int32), (1, 1, most))
    asked = ranks < number
    limit = ops.expand_dims(ops.min(ops.where(asked, found, _LARGEST), 2)[0], 2)
    if above is not None:
        limit = ops.maximum(limit, above)
    larger = ops.cast(ops.logical_and(found > limit, asked), float32)
    equal, firsts = first_marked(ops.cast(ops.equal(values, limit), float32), most)
    missing = ops.cast(number, float32) - ops.sum(larger, 2, True)
    equal = equal * ops.cast(ops.cast(ranks, float32) < missing, float32)
    return ops.cat((larger, equal), 2), ops.cat((places, firsts), 2)


def largest(values: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the ``most`` largest values along the last axis, falling and unrounded, and their
    places, int: (B, M, C) -> twice (B, M, most).
    """
    _, places = ops.topk(values, most, -1)
    places = ops.cast(places, int32)
    return ops.gather_elements(values, 2, places), places


def first_marked(marks: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Find the first ``most`` marked places along the last axis.

    Long rows are searched in blocks of at most ``EXACT`` places, and then among the results of the
    blocks.

    Shape: marks (B, M, C) float 0/1 -> whether each of ``most`` slots is filled, float 0/1, and its
        place, int, both (B, M, most). Slots that are not filled name some place.
    """
    batch, count, size = marks.shape
    blocks = -(-size // EXACT)
    if blocks == 1:
        return _first_of_block(marks, most)
    length = -(-size // blocks)
    rest = blocks * length - size
    if rest:
        marks = ops.cat((marks, ops.zeros((batch, count, rest), float32)), 2)
    filled_slots, places = _first_of_block(
        ops.reshape(marks, (batch, count * blocks, length)), min(most, length)
    )
    begins = ops.reshape(ops.arange(blocks, dtype=int32), (1, 1, blocks, 1)) * length
    places = ops.reshape(places, (batch, count, blocks, -1)) + begins
    found, slots = _first_of_block(ops.reshape(filled_slots, (batch, count, -1)), most)
    places = ops.gather_elements(ops.reshape(places, (batch, count, -1)), 2, slots)
    return found, ops.minimum(places, size - 1)


def _first_of_block(marks: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """``first_marked`` for at most ``EXACT`` places."""
    batch, count, size = marks.shape
    later = ops.reshape(ops.cast(ops.arange(size, 0, -1), float32), (1, 1, -1))
    later = ops.tile(later, (batch, count, 1))
    keys, _ = ops.topk(marks * later, most, -1)
    return ops.cast(keys > 0.5, float32), size - ops.cast(ops.maximum(keys, 1.0), int32)


def modulo(number: Tensor, divisor: int) -> Tensor:
    """Compute the remainder of integers from 0 to 2**30 that are less than 2**22 times ``divisor``.

    It is exact on every device; ``ops.floor_mod`` is documented not to be exact above 2048.
    """
    quotient = ops.cast(ops.floor(ops.cast(number, float32) / divisor), int32)
    rest = number - quotient * divisor  # the rounded quotient may be one off
    rest = ops.where(rest < 0, rest + divisor, rest)
    return ops.where(rest < divisor, rest, rest - divisor)

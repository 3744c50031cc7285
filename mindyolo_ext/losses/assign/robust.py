"""What keeps matches the same on every device: predictions that are not finite are left out, and of
equal values the first one counts.
"""

from mindyolo_ext.backend import Tensor, float32, int32, ops


def finite(*parts: Tensor) -> Tensor:
    """1 where tensors of one shape are all finite, else 0, float.

    Frameworks disagree on NaN: which of two numbers is the larger one, and which are the largest.
    So assigners leave such predictions out before they compare anything.
    """
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return ops.cast(ops.isfinite(total), float32)


def filled(usable: Tensor, parts: tuple[Tensor, ...], value: float) -> tuple[Tensor, ...]:
    """Tensors that broadcast with ``usable`` 0/1, with ``value`` wherever that is 0."""
    return tuple(ops.where(usable > 0.5, part, value) for part in parts)


def finite_targets(targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Targets (B, M, 5) and mask (B, M), both 0 for a box that is not finite."""
    usable = finite(*ops.unbind(targets, 2))
    (rows,) = filled(ops.expand_dims(usable, 2), (targets,), 0.0)
    return rows, mask * usable


def first_largest(
    values: Tensor, number: Tensor, most: int, *, above: float | None = None
) -> tuple[Tensor, Tensor]:
    """The largest values along the last axis, of equal ones the first.

    Which of equal values ``topk`` finds is up to the device, so those equal to the last one taken
    are looked up by their place.

    Args:
        values, number: see below; no value is NaN.
        most: the largest number, at most C.
        above: values not above it are never taken.

    Shape: values (B, M, C), how many to take (B, M, 1) int, at least 1 -> whether each of 2 *
        ``most`` slots is taken, float 0/1, and its place, int, both (B, M, 2 * ``most``). Slots
        that are not taken name some place.
    """
    size = values.shape[2]
    found, places = ops.topk(values, most, -1)
    ranks = ops.reshape(ops.arange(most, dtype=int32), (1, 1, most))
    limit = ops.gather_elements(found, 2, number - 1)  # the last value taken
    if above is not None:
        limit = ops.maximum(limit, above)
    larger = ops.cast(found > limit, float32)
    later = ops.reshape(ops.cast(ops.arange(size, 0, -1), float32), (1, 1, -1))
    keys, _ = ops.topk(ops.cast(ops.equal(values, limit), float32) * later, most, -1)
    missing = ops.cast(number, float32) - ops.sum(larger, 2, True)
    equal = ops.logical_and(ops.cast(ranks, float32) < missing, keys > 0.5)
    taken = ops.cat((larger, ops.cast(equal, float32)), 2)
    firsts = size - ops.cast(ops.maximum(keys, 1.0), int32)
    return taken, ops.cat((ops.cast(places, int32), firsts), 2)

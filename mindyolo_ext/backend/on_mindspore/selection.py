"""Keep all predictions, because a graph has fixed shapes, and zero unmatched ones at the end."""

from mindspore import Tensor


def at_matches(matched: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG001
    """Select the columns of matched predictions for a loss term.

    Shape: matched (B, A) 0/1; columns (B, K, A) -> the same.
    """
    return columns


def to_matches(matched: Tensor, values: Tensor) -> Tensor:
    """Spread values computed from ``at_matches`` over all predictions, 0 if unmatched.

    Shape: matched and values (B, A) -> (B, A).
    """
    return values * matched

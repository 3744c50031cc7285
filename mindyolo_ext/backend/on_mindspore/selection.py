"""All predictions, because a graph has fixed shapes; what is not matched counts 0 in the end."""

from mindspore import Tensor


def at_matches(matched: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG001
    """What a term reads of the predictions that match.

    Shape: matched (B, A) 0/1; columns (B, K, A) -> the same.
    """
    return columns


def to_matches(matched: Tensor, values: Tensor) -> Tensor:
    """One value for each prediction, 0 where nothing matches, from those computed of what
    ``at_matches`` gave.

    Shape: matched and values (B, A) -> (B, A).
    """
    return values * matched

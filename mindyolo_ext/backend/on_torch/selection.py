"""Select matched predictions on a CPU. A GPU uses all predictions: it would have to wait for the
number of matches.
"""

import torch

from mindyolo_ext.backend.on_torch.recording import is_traced


def at_matches(matched: torch.Tensor, *columns: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Select the columns of matched predictions for a loss term.

    Shape: matched (B, A) 0/1; columns (B, K, A) -> (matches, K), or all (B, K, A).
    """
    if not _picks(matched):
        return columns
    image, prediction = torch.nonzero(matched, as_tuple=True)
    return tuple(column[image, :, prediction] for column in columns)


def to_matches(matched: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Spread values computed from ``at_matches`` over all predictions, 0 if unmatched.

    Shape: matched (B, A) 0/1; values (matches,), or all (B, A) -> (B, A).
    """
    if not _picks(matched):
        return values * matched
    places = torch.nonzero(matched, as_tuple=True)
    return torch.zeros_like(matched).index_put(places, values)


def _picks(matched: torch.Tensor) -> bool:
    """Whether the number of matches is known without waiting."""
    return matched.device.type == "cpu" and not is_traced()

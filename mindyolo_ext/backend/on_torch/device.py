"""The device where tensors are made."""

import torch


class _State:
    """One device per process."""

    device = torch.device("cpu")


def device() -> torch.device:
    """Where new tensors go."""
    return _State.device


def set_device(new: torch.device) -> None:
    """Make new tensors on ``new``; those that exist stay where they are."""
    _State.device = new

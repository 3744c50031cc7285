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


def exact_float32() -> None:
    """Compute float32 as such on GPUs; PyTorch's convolutions take TF32, of 10 bits, else."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False

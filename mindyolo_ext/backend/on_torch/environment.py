"""Threads, CUDA and GPUs of PyTorch."""

import torch


def settings() -> list[tuple[str, str]]:
    """Return names and values of the settings that determine PyTorch's speed."""
    cuda = torch.version.cuda or "not in this build of PyTorch"
    rows = [("PyTorch's threads", str(torch.get_num_threads())), ("CUDA", cuda)]
    if torch.cuda.is_available():
        rows += [
            (f"GPU {i}", torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())
        ]
    return rows

"""Timing of a step on both sides of ``cuda_check.py``. It needs only PyTorch, so the originals'
Python can use it too.
"""

import resource
import time

import torch


def timed(call, is_cuda, quick):
    """Seconds of a call, after warm-up calls that do not count: 10, or as many as fit into 3
    seconds.
    """
    warm, most, longest = (0, 1, 1.0) if quick else (3, 10, 3.0)
    for _ in range(warm):
        call()
    if is_cuda:
        torch.cuda.synchronize()
    begin = time.perf_counter()
    done = 0
    while done < most and time.perf_counter() - begin < longest:
        call()
        done += 1
    if is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - begin) / done


def peak_gigabytes(is_cuda):
    """Peak GPU memory in tensors since the last reset; on a CPU, that of the process."""
    if is_cuda:
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6

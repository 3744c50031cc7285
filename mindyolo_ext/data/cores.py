"""Number of processor cores that this process may use."""

import os


def own_cores(ranks: int = 1) -> int:
    """Return the number of cores for this process, at least 1.

    Args:
        ranks: processes on this machine that share the cores evenly.
    """
    try:
        cores = len(os.sched_getaffinity(0))  # respects containers and `taskset`
    except AttributeError:  # does not exist on macOS and Windows
        cores = os.cpu_count() or 1
    return max(1, cores // ranks)

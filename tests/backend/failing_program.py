"""Rank 1 fails while rank 0 waits for it in an all-reduce."""

from mindyolo_ext.backend import launch

if __name__ == "__main__":
    this = launch.start("CPU", is_parallel=True)
    from mindyolo_ext.backend.distributed import barrier

    barrier()
    if this.rank == 1:
        raise ValueError("rank 1 has had enough")
    barrier()

"""MindSpore's cluster scheduler. Run as a module it is a child of rank 0 and ends with it."""

import os
import sys
import threading


def _end_with_parent() -> None:
    """Wait for the pipe from rank 0 to close, give the cluster a moment to part, and leave."""
    sys.stdin.buffer.read()
    threading.Event().wait(5)
    os._exit(0)


def serve() -> None:
    """Serve until every worker has left."""
    import mindspore as ms
    from mindspore.communication import init

    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_device("CPU")
    init()


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    serve()

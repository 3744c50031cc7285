"""MindSpore's cluster scheduler, a process that ends with the one that started it: rank 0 under
``mpirun``, the watch under ``msrun``.
"""

import os
import signal
import sys
import threading

from mindyolo_ext.errors import DeviceError


def _end_with_parent() -> None:
    """Wait until that process closes the pipe, give the cluster a moment to part, and leave."""
    sys.stdin.buffer.read()
    threading.Event().wait(5)
    os._exit(0)


def serve() -> None:
    """Serve until every worker has left. Raises: DeviceError if one stops answering."""
    # Seconds without a heartbeat; MindSpore would wait for 30
    os.environ.setdefault("MS_NODE_TIMEOUT", "15")
    import mindspore as ms
    from mindspore.communication import init

    from mindyolo_ext.backend.on_mindspore.errors import without_call_stack

    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_device("CPU")
    try:
        init()
    except RuntimeError as error:
        raise DeviceError(
            f"MindSpore's scheduler ends the run, because ranks have ended or do not answer; their "
            f"logs say why ({without_call_stack(error)})"
        ) from error


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        serve()
    except DeviceError as problem:
        sys.stdout.write(f"ERROR: {problem}\n")
        sys.exit(1)

"""MindSpore's cluster scheduler, run as a module.

The scheduler blocks Python, so ``COMMAND`` starts a second process that runs it. The first process
ends the second one when the pipe from rank 0 closes, however rank 0 ended.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading

from mindyolo_ext.errors import DeviceError

COMMAND = (sys.executable, "-m", "mindyolo_ext.backend.on_mindspore.scheduler")
SERVE = (*COMMAND, "--serve")
_PARTING_SECONDS = 5.0  # time for the cluster to end after rank 0


def serve_for_parent() -> int:
    """Serve in another process until standard input closes or the cluster ends. Return its exit
    code.
    """
    with subprocess.Popen(SERVE, stdin=subprocess.DEVNULL) as server:

        def end_with_parent() -> None:
            sys.stdin.buffer.read()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(_PARTING_SECONDS)
            server.kill()

        threading.Thread(target=end_with_parent, daemon=True).start()
        return server.wait()


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
            f"MindSpore's scheduler ends the run, because ranks have ended or do not reply; see "
            f"their logs ({without_call_stack(error)})"
        ) from error


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends it
    if sys.argv[1:] != list(SERVE[len(COMMAND) :]):
        sys.exit(serve_for_parent())
    try:
        serve()
    except DeviceError as problem:
        sys.stdout.write(f"ERROR: {problem}\n")
        sys.exit(1)

"""The worker's end of the pipe: JSON lines in, JSON lines out. It uses only the standard library,
so any Python can run it.
"""

import json
import os
import re
import sys
import time
import traceback


class Tasks:
    """Callables by name, prepared once and timed as often as asked."""

    def __init__(self):
        self.tasks = {}

    def measure(self, task, count, clock="wall"):
        """Mean seconds of ``count`` calls in a row, on the wall or of this process's processor
        time.
        """
        call, now = self.tasks[task], time.perf_counter if clock == "wall" else time.process_time
        begin = now()
        for _ in range(count):
            call()
        return (now() - begin) / count

    def most_memory(self):
        """The peak memory of this process, in GB; not ``ru_maxrss``, which a process on Linux
        inherits from the one that started it.
        """
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            return int(re.search(r"VmHWM:\s+(\d+)", status.read())[1]) * 1024 / 1e9


def serve(worker):
    """Answer ``{"job": method of worker, "arguments": {...}}`` until the other end closes.

    Output of libraries goes to standard error; only answers reach standard output.
    """
    jobs = worker.jobs()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"value": jobs[request["job"]](**request["arguments"])}
        except Exception:  # the driver raises it with the worker's traceback
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

"""Read mutants, one per line of standard input, and write a verdict per line.

This is a separate process: a mutant that uses up memory, hangs or crashes ends it, and the runner
starts the next one.
"""

import faulthandler
import json
import logging
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from .formats import MAKERS, make, sound, write
from .formats.pickles import CANARY
from .readers import Reading, readings
from .verdict import judged, mapped, measured, peak
from .watch import Watch

NO_END_SECONDS = 20.0  # of processor time; then the process ends
MAX_WAIT_SECONDS = 300.0  # likewise in real time, for what waits forever
MAX_ALLOCATION = 1 << 30  # for a single allocation, above the process at rest
Reader = Callable[[str, Path], Iterable[Reading]]


def main(home: Path, reader: Reader = readings) -> None:
    """Judge the requested mutants: ``format seed number`` per line.

    Args:
        home: folder for everything that is written.
        reader: gives the calls for a format and a folder.
    """
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of a library is not a verdict
    os.chdir(home)  # attacks by relative names stay here
    warnings.simplefilter("ignore")
    logging.getLogger().handlers = [watch := Watch()]
    Path(f"{CANARY}.py").write_text("def sing(): pass\nclass Song: pass\n", encoding="utf-8")
    sys.path.insert(0, str(home))
    folder = home / "case"
    for name in MAKERS:  # load late imports before the first mutant
        write(sound(name, 0), folder)
        for call in readings(name, folder):
            judged(call, folder, watch)
    at_rest = peak()
    limit = mapped() + MAX_ALLOCATION
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    faulthandler.register(signal.SIGPROF, chain=True)  # says where, then the process ends
    for line in sys.stdin:
        name, seed, number = line.split()
        write(make(name, int(seed), int(number)), folder)
        signal.setitimer(signal.ITIMER_PROF, NO_END_SECONDS)
        faulthandler.dump_traceback_later(MAX_WAIT_SECONDS, exit=True)
        verdict = measured([*reader(name, folder)], folder, watch, at_rest)
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0)
        channel.write(json.dumps(asdict(verdict)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())

"""The peers: original programs in the user's PyTorch. ``run.py`` starts this with the user's
Python.

``theirs.py FAMILY CLONE THREADS`` serves jobs; ``theirs.py FAMILY CLONE THREADS PROGRAM
ARGUMENTS...`` runs a program of the clone. The clone stays unchanged: ``original_FAMILY.py`` adapts
it from outside.
"""

import os
import runpy
import sys

import original_dynamicdet
import original_gold_yolo
import original_simple_yolo
import original_yolo_fastestv2
import original_yolox
import torch
from serving import serve

MAKERS = {
    "yolo_fastestv2": original_yolo_fastestv2.make,
    "yolox": original_yolox.make,
    "gold_yolo": original_gold_yolo.make,
    "dynamicdet": original_dynamicdet.make,
    "simple_yolo": original_simple_yolo.make,
}


def main(family, clone, threads, program=None, *arguments):
    """Serve jobs, or run ``program`` of the clone."""
    sys.path.insert(0, clone)
    os.chdir(clone)
    worker = MAKERS[family](int(threads))
    if program is None:
        serve(worker)
        return
    torch.set_num_threads(int(threads))
    sys.argv = [program, *arguments]
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])

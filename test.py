"""Evaluate a checkpoint: ``python test.py --config configs/... --weight FILE [--help]``."""

import sys

from mindyolo_ext.cli import test_main

if __name__ == "__main__":
    sys.exit(test_main())

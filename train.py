"""Train a model: ``python train.py --config configs/... [--help]``."""

import sys

from mindyolo_ext.cli import train_main

if __name__ == "__main__":
    sys.exit(train_main())

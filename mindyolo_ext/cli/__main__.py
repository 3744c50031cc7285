"""``python -m mindyolo_ext.cli VERB``."""

import sys

from mindyolo_ext.cli import main

if __name__ == "__main__":
    sys.exit(main())

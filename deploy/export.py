"""Write MindIR, ONNX or AIR: the same as ``mindyolo-ext export``; see README.md beside this
file.
"""

import sys
from pathlib import Path

# from a checkout that is not installed
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mindyolo_ext.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))

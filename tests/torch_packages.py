"""Print what the PyTorch backend needs, tests included and MindSpore not, one requirement a line.

For `make test-torch`: pip has no option to leave one dependency out.
"""

import re
from importlib.metadata import requires

EXTRAS = ("dev", "torch")


def main() -> None:
    for requirement in requires("mindyolo_ext") or ():
        name, _, marker = requirement.partition(";")
        extra = re.search(r"extra == [\"'](\w+)[\"']", marker)
        if name.startswith("mindspore") or extra is not None and extra[1] not in EXTRAS:
            continue
        print(name.strip() if extra is not None else requirement)


if __name__ == "__main__":
    main()

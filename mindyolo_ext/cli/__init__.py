"""The console command ``mindyolo-ext VERB``; ``train.py`` and ``test.py`` are two of its verbs.

One module per group of verbs: ``train``, ``evaluate`` (test, thresholds), ``predict``, ``convert``
(convert, verify, export), ``data`` (anchors, check-data, assign), ``about`` (info, models, recipe,
doctor, demo). Each has a function per verb and one that adds its arguments. ``arguments`` and
``recipe`` hold what several verbs share, ``ending`` turns errors into messages and exit codes.

Frameworks are imported inside the verbs: ``--help`` and wrong arguments answer at once.
"""

import sys
from collections.abc import Sequence

from mindyolo_ext.cli import ending
from mindyolo_ext.cli.parser import parser_for

__all__ = ["main", "test_main", "train_main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code, see ``ending``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser_for(given).parse_args(given)
    ending.set_up_logging(options.log_level)
    return ending.run(options)


def train_main(arguments: Sequence[str] | None = None) -> int:
    """``train.py``: the verb ``train``."""
    return main(["train", *(sys.argv[1:] if arguments is None else arguments)])


def test_main(arguments: Sequence[str] | None = None) -> int:
    """``test.py``: the verb ``test``."""
    return main(["test", *(sys.argv[1:] if arguments is None else arguments)])

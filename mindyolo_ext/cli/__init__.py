"""The console command ``mindyolo-ext VERB``; ``train.py`` and ``test.py`` are two of its verbs.

One module per group of verbs: ``train``, ``evaluate`` (test, thresholds), ``predict``, ``convert``
(convert, verify, export), ``data`` (anchors, check-data, assign), ``about`` (info, models, recipe,
doctor, demo). Each has a function per verb and one that adds its arguments. ``arguments`` and
``recipe`` hold what several verbs share, ``ending`` turns errors into messages and exit codes.

Frameworks are imported inside the verbs, so ``--help`` and wrong arguments are answered at once.
This module imports almost nothing, so that ``interrupts`` handles signals before slow imports
begin.
"""

import sys
from collections.abc import Sequence

from mindyolo_ext.cli import interrupts

__all__ = ["main", "test_main", "train_main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code, see ``ending``.

    Args:
        arguments: the verb and its arguments; None takes them from the command line, and the
            process ends after the verb.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    return _run(given, for_good=arguments is None)


def train_main(arguments: Sequence[str] | None = None) -> int:
    """``train.py``: the verb ``train``."""
    given = sys.argv[1:] if arguments is None else arguments
    return _run(["train", *given], for_good=arguments is None)


def test_main(arguments: Sequence[str] | None = None) -> int:
    """``test.py``: the verb ``test``."""
    given = sys.argv[1:] if arguments is None else arguments
    return _run(["test", *given], for_good=arguments is None)


def _run(arguments: Sequence[str], *, for_good: bool) -> int:
    """Run one verb; ``for_good`` says that the process ends after it."""
    with interrupts.handled(for_good=for_good):
        from mindyolo_ext.cli import ending
        from mindyolo_ext.cli.parser import parser_for

        options = parser_for(arguments).parse_args(arguments)
        ending.set_up_logging(options.log_level)
        return ending.run(options, ends_process=for_good)

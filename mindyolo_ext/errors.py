"""Errors that a user can mend. The command line explains these in one line; anything else that is
raised is a fault of the program and keeps its traceback.

Each message says where, what came, what was wanted, and what to do next. Every kind is a built-in
exception too, so ``except ValueError`` around a library call keeps working.
"""

import difflib
import reprlib
from collections.abc import Iterable

_BRIEF = reprlib.Repr()  # stops early, so that a list of millions costs nothing
_BRIEF.maxlist = _BRIEF.maxdict = _BRIEF.maxtuple = 12
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 80


class UserError(Exception):
    """Something that whoever runs the program can mend. Its text never steers a terminal: control
    characters, which may come from a file, are written out.
    """

    def __str__(self) -> str:
        return printable(super().__str__(), keep="\n")


class UsageError(UserError, ValueError):
    """Arguments of a command or function that do not fit each other, or a value out of range."""


class ConfigError(UserError, ValueError):
    """A recipe that cannot be used; the message names file and key."""


class DataError(UserError, ValueError):
    """A data set, label or image that cannot be used; the message names file and line."""


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be read, converted or written."""


class UnsafeCheckpointError(CheckpointError):
    """A file that names something a checkpoint of weights has no business with. Nothing of it
    was run.
    """


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that is not there."""


class ExistingFileError(UserError, FileExistsError):
    """A file or folder that would be overwritten."""


class WriteError(UserError, OSError):
    """A file that the disk refuses: no space, no permission, no such place. Nothing of it stays."""


class DeviceError(UserError, RuntimeError):
    """A device, launcher or package that this machine does not offer."""


class StuckError(DeviceError):
    """Work that does not end, because a process was stopped or a disk does not answer. A thread
    that waits for it cannot be ended.
    """


class MissingPackageError(DeviceError, ImportError):
    """A package or program that is not installed; the message says how to install it."""


class ExportError(UserError, ValueError):
    """An exported file that does not give the network's numbers, and was not written."""


class RunError(UserError, RuntimeError):
    """A command that another command started failed; its own message says why."""


class TrainingError(UserError, FloatingPointError):
    """A training that cannot go on, because its numbers are not finite."""


def printable(text: str, *, keep: str = "") -> str:
    """``text`` with control characters and halves of characters written out, as ``\\x1b``.

    Args:
        keep: control characters that stay.
    """
    if text.isprintable():  # nearly always, and every file that is opened is asked
        return text
    return "".join(
        sign if sign.isprintable() or sign in keep else sign.encode("unicode_escape").decode()
        for sign in text
    )


def shown(value: object, longest: int = 80) -> str:
    """``value`` for a message or a table: printable, and cut to ``longest`` characters."""
    if isinstance(value, int) and value.bit_length() > 128:  # Python may refuse to print it
        return f"a whole number of {value.bit_length()} bits"
    text = value if isinstance(value, str) else _BRIEF.repr(value)
    return printable(text if len(text) <= longest else f"{text[:longest]}...")


def closest(word: object, known: Iterable[object]) -> str | None:
    """The one of ``known`` that ``word`` is most likely a misspelling of, in whatever case."""
    words = {str(name).lower(): str(name) for name in known}
    near = difflib.get_close_matches(str(word).lower(), sorted(words), n=1)
    return words[near[0]] if near else None


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """``, did you mean X?`` for a near miss, otherwise the list of known words."""
    words = sorted(str(name) for name in known)
    near = closest(word, words)
    return f", did you mean {near}?" if near else f"; known: {', '.join(words) or 'none'}"

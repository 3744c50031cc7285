"""Errors that a user can fix. The command line reports them in one line; any other exception is a
bug and keeps its traceback.

Each message says where, what came, what was wanted, and what to do next. Every class also derives
from a built-in exception, so ``except ValueError`` around a library call works.
"""

import difflib
import reprlib
from collections.abc import Iterable

_BRIEF = reprlib.Repr()  # stops early, so that a list of millions of items is cheap
_BRIEF.maxlist = _BRIEF.maxdict = _BRIEF.maxtuple = 12
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 80


class UserError(Exception):
    """An error that the person who runs the program can fix. Control characters in its text, which
    may come from a file, are escaped, so they cannot control a terminal.
    """

    def __str__(self) -> str:
        return printable(super().__str__(), keep="\n")


class UsageError(UserError, ValueError):
    """Arguments of a command or function that contradict each other, or a value out of range."""


class ConfigError(UserError, ValueError):
    """A recipe that cannot be used; the message names file and key."""


class DataError(UserError, ValueError):
    """A data set, label or image that cannot be used; the message names file and line."""


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be read, converted or written."""


class UnsafeCheckpointError(CheckpointError):
    """A file that refers to something foreign to a checkpoint. Nothing in it was run."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that does not exist."""


class ExistingFileError(UserError, FileExistsError):
    """A file or folder that would be overwritten."""


class WriteError(UserError, OSError):
    """A file that cannot be written: no space, no permission, no such folder. No part of it is left
    behind.
    """


class DeviceError(UserError, RuntimeError):
    """A device, launcher or package that this machine does not have."""


class StuckError(DeviceError):
    """Work that does not end, because a process was stopped or a disk does not respond. The thread
    that waits for it cannot be ended.
    """


class MissingPackageError(DeviceError, ImportError):
    """A package or program that is not installed; the message says how to install it."""


class ExportError(UserError, ValueError):
    """An exported file whose outputs differ from the network's; it was not written."""


class ReproductionError(UserError, ValueError):
    """Weights that do not reproduce the expected number; the report is written."""


class RunError(UserError, RuntimeError):
    """A command that was started by another one failed; its own message says why."""


class TrainingError(UserError, FloatingPointError):
    """A training that cannot continue because its numbers are not finite."""


def printable(text: str, *, keep: str = "") -> str:
    """Escape control characters and surrogates in ``text``, as ``\\x1b``.

    Args:
        keep: control characters that are not escaped.
    """
    if text.isprintable():  # the usual case, and this runs for every file that is opened
        return text
    return "".join(
        sign if sign.isprintable() or sign in keep else sign.encode("unicode_escape").decode()
        for sign in text
    )


def shown(value: object, longest: int = 80) -> str:
    """Format ``value`` for a message or a table: printable, and cut to ``longest`` characters."""
    if isinstance(value, int) and value.bit_length() > 128:  # Python may refuse to print it
        return f"a whole number of {value.bit_length()} bits"
    text = value if isinstance(value, str) else _BRIEF.repr(value)
    return printable(text if len(text) <= longest else f"{text[:longest]}...")


def closest(word: object, known: Iterable[object]) -> str | None:
    """Return the word of ``known`` that ``word`` most likely misspells, ignoring case."""
    words = {str(name).lower(): str(name) for name in known}
    near = difflib.get_close_matches(str(word).lower(), sorted(words), n=1)
    return words[near[0]] if near else None


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """Return ``, did you mean X?`` for a near miss, otherwise the list of known words."""
    words = sorted(str(name) for name in known)
    near = closest(word, words)
    return f", did you mean {near}?" if near else f"; known: {', '.join(words) or 'none'}"

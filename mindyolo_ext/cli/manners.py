"""Argument parser that shows defaults in every help text, accepts no abbreviations, and suggests
the closest match for an unknown word.
"""

import argparse
import itertools
from collections.abc import Sequence
from typing import Any, NoReturn

from mindyolo_ext.errors import closest, shown

# What other programs call an option
_ELSEWHERE = {
    "batch": "per_batch_size",
    "cfg": "config",
    "checkpoint": "weight",
    "ckpt": "weight",
    "conf": "conf_thres",
    "device": "device_target",
    "fp16": "ms_amp_level",
    "imgsz": "img_size",
    "iou": "iou_thres",
    "name": "save_dir",
    "nms": "iou_thres",
    "project": "save_dir",
    "tsize": "img_size",
}


class Formatter(argparse.HelpFormatter):
    """Adds the default to a help text that does not mention one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help
        silent = action.default in (None, [], argparse.SUPPRESS) or action.required
        if not text or silent or not action.option_strings or "default" in text:
            return text
        if action.const is True and action.default is False:
            return f"{text} (default: off)"
        return f"{text} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """Parser without abbreviations; an error is one line that names the help command."""

    def __init__(self, **keywords: Any):
        super().__init__(allow_abbrev=False, formatter_class=Formatter, **keywords)

    def error(self, message: str) -> NoReturn:
        """Print the message and leave with status 2."""
        self.exit(2, f"error: {self.prog}: {message} (`{self.prog} --help`)\n")


class VerbParser(Parser):
    """Parser of one verb. An unknown option is reported, with the closest known one, before missing
    arguments are.
    """

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse like the base class, but treat leftover words as an error."""
        words = itertools.takewhile(lambda word: word != "--", args or ())
        for word in words:
            if word.startswith("--") and word.partition("=")[0] not in self._option_string_actions:
                self.error(self._unknown(word))
        options, left = super().parse_known_args(args, namespace)
        if left:
            self.error(f"unexpected {shown(' '.join(left))}")
        return options, left

    def _unknown(self, word: str) -> str:
        """Return the message for an unknown option."""
        flag, _, value = word.partition("=")
        own = [
            text
            for action in self._actions
            if action.help != argparse.SUPPRESS
            for text in action.option_strings
            if text.startswith("--")
        ]
        return f"unknown option {shown(flag)}{meant(flag, own, value)}"


def meant(flag: str, own: Sequence[str], value: str = "") -> str:
    """Return ``, did you mean --X?`` for an option not in ``own``; empty if nothing is close.

    Args:
        flag: as typed, without its value.
        value: text after ``=``.
    """
    word = flag.lstrip("-").replace("-", "_").lower()
    known = {option.lstrip("-").replace("-", "_").lower(): option for option in own}
    word = _ELSEWHERE.get(word, word)
    if word in known:
        return f", did you mean {known[word]}?"
    if "--set" in own:
        keys = _settings_called(word)
        if len(keys) == 1:
            return f", did you mean --set {keys[0]}={shown(value) or 'VALUE'}?"
        if keys:
            return f", did you mean --set with one of {', '.join(keys)}?"
    holding = [name for name in known if len(word) > 3 and (word in name or name in word)]
    near = min(holding, key=len) if holding else closest(word, known)
    return f", did you mean {known[near]}?" if near else ""


def _settings_called(word: str) -> list[str]:
    """List the recipe settings whose last part is ``word``."""
    from mindyolo_ext.config.describe import settings

    names = [setting.name for setting in settings() if "[" not in setting.name]
    return [name for name in names if name.rpartition(".")[2] == word]

"""Flags of ``train`` and ``test`` that choose a part of the data, frozen layers, images per update
and rectangular inputs, as ultralytics and MindYOLO call them.
"""

import argparse
from typing import Any

from mindyolo_ext.cli.arguments import add_setting, true_or_false


def class_word(text: str) -> str | int:
    """Parse a class: an integer is its number, any other word its name."""
    return int(text) if text.isdecimal() else text


def layers(text: str) -> list[str | int]:
    """Parse one word of ``--freeze``: names and numbers, in brackets or separated by commas."""
    if text.isdecimal() and text.startswith("0"):
        return [int(digit) for digit in text]  # as MindYOLO reads 012
    inner = text[1:-1] if text[:1] + text[-1:] in ("[]", "()") else text
    words = inner.replace(",", " ").split()
    return [int(word) if word.isdecimal() else word.strip("'\"") for word in words]


def add_selection(parser: argparse.ArgumentParser, *, fraction: bool) -> None:
    """Add ``--classes`` and ``--single_cls``, and ``--fraction`` if asked for."""
    add_setting(parser, "--classes", "data.classes", nargs="+", type=class_word, metavar="CLASS")
    add_flag(parser, "--single_cls", "data.single_cls")
    if fraction:
        add_setting(parser, "--fraction", "data.fraction", type=float)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags that only ``train`` has."""
    add_selection(parser, fraction=True)
    add_setting(
        parser,
        "--freeze",
        "train.freeze",
        "Layers to freeze: N for the first N, '[0,1,2]' or 0 1 2 for these, or prefixes (backbone) "
        "and patterns of parameter names",
        action=_Freeze,
        nargs="+",
        type=layers,
        metavar="LAYER",
    )
    add_setting(parser, "--nbs", "train.optimizer.nominal_batch", type=int)
    add_flag(
        parser,
        "--rect",
        "train.rectangular",
        "Batch images of similar shape, with as little padding as possible; turns off mosaics and "
        "train.multi_scale",
    )


def add_flag(parser: argparse.ArgumentParser, flag: str, key: str, text: str = "") -> None:
    """Add a flag for a setting that takes ``True`` or ``False``; the flag alone means True."""
    add_setting(
        parser, flag, key, text, type=true_or_false, nargs="?", const=True, metavar="True|False"
    )


class _Freeze(argparse.Action):
    """Store the layers that the words of ``--freeze`` mean."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        setattr(namespace, self.dest, frozen_layers(values))


def frozen_layers(words: list[list[str | int]]) -> list[str | int]:
    """Return ``train.freeze`` for the words of ``--freeze``. A single number N means the first N
    layers, as in ultralytics and YOLOv7.
    """
    found = [layer for word in words for layer in word]
    is_count = len(found) == 1 and isinstance(found[0], int)
    return list(range(int(found[0]))) if is_count else found

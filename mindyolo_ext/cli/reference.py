"""``docs/cli.md`` from the parser: ``python -m mindyolo_ext.cli.reference > docs/cli.md``."""

import argparse
import sys

from mindyolo_ext.cli.parser import VERBS, parser_for

_HEAD = """# Commands

`mindyolo-ext VERB`; `train.py` and `test.py` run the verbs `train` and `test`. This page is
generated from the parser: `python -m mindyolo_ext.cli.reference`.
"""


def markdown() -> str:
    """Format every verb with a table of its arguments."""
    parts = [_HEAD]
    for verb in VERBS:
        rows = [_row(action) for action in _actions(verb.name)]
        head = f"## {verb.name}\n\n{verb.text[0].upper()}{verb.text[1:]}.\n"
        parts.append(f"{head}\n| argument | meaning |\n| --- | --- |\n{''.join(rows)}")
    return "\n".join(parts)


def _actions(name: str) -> list[argparse.Action]:
    """List the arguments of a verb, without ``--help`` and hidden ones."""
    verbs = next(
        action
        for action in parser_for([name])._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return [
        action
        for action in verbs.choices[name]._actions
        if action.help is not argparse.SUPPRESS and "--help" not in action.option_strings
    ]


def _row(action: argparse.Action) -> str:
    """Format one table row: the names of an argument, its values and its help."""
    name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    if action.option_strings and action.nargs != 0:
        value = action.metavar or action.dest.upper()
        value = "|".join(map(str, action.choices)) if action.choices else value
        name += f" {value if isinstance(value, str) else ' '.join(value)}"
    meaning = argparse.HelpFormatter("mindyolo-ext")._expand_help(action) if action.help else ""
    meaning = " ".join(meaning.split())
    return f"| `{_cell(name)}` | {_cell(meaning)} |\n"


def _cell(text: str) -> str:
    """Escape characters that would end a table cell."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(markdown())

"""Generate the tables of the documentation that repeat the families' records.

``make tables`` writes them into the pages, between ``<!-- table: ... -->`` and ``<!-- /table -->``;
a test fails if a page is out of date. Loads no framework.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from mindyolo_ext.contracts import Family
from mindyolo_ext.models.registry import families, family

_FAMILIES_HEADS = {
    "families": ("family", "models", "published, %", "equal to the original here"),
    "families zh": ("系列", "模型", "原作者公布的精度（%）"),
}
_BLOCK = re.compile(r"(<!-- table: (?P<what>[^>]*?) -->\n).*?(<!-- /table -->)", re.S)


def markdown(what: str) -> str:
    """Return the table called ``families``, ``families zh``, ``terms`` or ``variants FAMILY``.

    Raises: ValueError for another name.
    """
    kind, _, name = what.partition(" ")
    if what in _FAMILIES_HEADS:
        return _families(_FAMILIES_HEADS[what])
    if kind == "terms" and not name:
        return _rows(
            ("family", "original", "terms of the original and its weights"),
            [(r.title, r.repository, r.terms) for r in families().values()],
        )
    if kind == "variants":
        return _variants(family(name))
    raise ValueError(
        f"tables: wanted families, families zh, terms or variants FAMILY, got {what!r}"
    )


def updated(text: str) -> str:
    """Return the text of a page with every table up to date."""
    return _BLOCK.sub(lambda block: f"{block[1]}{markdown(block['what'])}{block[3]}", text)


def _families(head: Sequence[str]) -> str:
    """Build a row per family; ``head`` names the columns, and a shorter head drops the last
    ones.
    """
    rows = []
    for name, record in families().items():
        models = ", ".join(f"`{model}`" for model in record.variants)
        row = (f"[{record.title}](docs/{name}.md)", models, _published(record), record.verified)
        rows.append(row[: len(head)])
    return _rows(head, rows)


def _published(record: Family) -> str:
    """Format the range of the published accuracy, as ``39.9–53.3 AP val``."""
    published = [
        (what.partition(",")[0], value)
        for variant in record.variants.values()
        for what, value in variant.published.items()
    ]
    if not published:
        return "-"
    metric = published[0][0]
    values = [value for what, value in published if what == metric]
    lowest, highest = min(values), max(values)
    return f"{lowest} {metric}" if lowest == highest else f"{lowest}–{highest} {metric}"


def _variants(record: Family) -> str:
    """Build a column per model; numbers counted here and published ones never share a row."""
    variants = record.variants
    rows = [
        ("input", *(f"{v.input_size[0]} x {v.input_size[1]}" for v in variants.values())),
        ("parameters, counted here", *(f"{v.parameters:,}" for v in variants.values())),
    ]
    for what in dict.fromkeys(what for v in variants.values() for what in v.published):
        values = (v.published.get(what) for v in variants.values())
        rows.append((f"published: {what}", *("-" if x is None else str(x) for x in values)))
    return _rows(("", *(f"`{name}`" for name in variants)), rows)


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(pages: Sequence[str]) -> None:
    """Update the tables of the pages named on the command line."""
    for page in map(Path, pages):
        page.write_text(updated(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

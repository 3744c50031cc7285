"""Ratios of ``docs/benchmarks.md`` in one table:

    python benchmarks/summary.py docs/benchmarks.md docs/results.md

puts it between the marks ``<!-- speed -->`` and ``<!-- end of speed -->`` of the second file.
"""

import re
import sys
from pathlib import Path

from marks import part, with_part
from tabulate import tabulate

from mindyolo_ext.atomic import write_text

SECTIONS = {  # of the first page, and what each of them times
    "forward": "Yolo-FastestV2 at 352, forward",
    "forward_onnx": "Yolo-FastestV2 at 352, forward",
    "train_step": "Yolo-FastestV2, training step",
    "yolox_forward": "YOLOX, forward",
    "yolox_train_step": "YOLOX, training step",
    "gold_yolo_forward": "Gold-YOLO at 640, forward",
    "gold_yolo_train_step": "Gold-YOLO, step 1 of the training",
    "gold_yolo_distill_step": "Gold-YOLO, step 2",
    "dynamicdet_forward": "DynamicDet, forward",
    "dynamicdet_train_step": "DynamicDet, step 1 of the training",
    "dynamicdet_router_step": "DynamicDet, step 2",
    "simple_yolo_train_step": "simple YOLO, training step",
}
COLUMNS = {
    "MindSpore graph": "MindSpore",
    "our PyTorch backend": "PyTorch backend",
    "exported ONNX in ONNX Runtime": "ONNX Runtime",
}
PEER = " / PyTorch eager"


def ratios(page: str) -> dict[str, dict[str, str]]:
    """Ratios by the case and the column."""
    table: dict[str, dict[str, str]] = {}
    for section, title in SECTIONS.items():
        for suffix in ("", "_on_torch"):
            for text, ratio in rows_of(page, section + suffix):
                case, column = text, "MindSpore" if not suffix else "PyTorch backend"
                if text.endswith(PEER):
                    case, _, ours = text.removesuffix(PEER).rpartition(", ")
                    column = COLUMNS[ours]
                elif " / " in text:  # two programs of ours
                    continue
                table.setdefault(f"{title}: {case}", {})[column] = ratio
    return table


def rows_of(page: str, section: str) -> list[tuple[str, str]]:
    """What each line of a section times, without the check in parentheses, and its ratio."""
    lines = re.findall(r"^\| (.+?) \|.*?\| \*\*(\S+)\*\* \|", part(page, section), re.M)
    return [(re.sub(r" \((first loss|largest diff).*\)$", "", text), x) for text, x in lines]


def summary(page: str) -> str:
    """The table."""
    names = list(COLUMNS.values())
    rows = [(case, *(its.get(name, "") for name in names)) for case, its in ratios(page).items()]
    return tabulate(
        rows, ("time relative to the original", *names), "github", disable_numparse=True
    )


def with_summary(target: str, page: str) -> str:
    """The text of a page with the table between its marks."""
    return with_part(target, "speed", summary(page))


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    page = source.read_text(encoding="utf-8")
    write_text(target, with_summary(target.read_text(encoding="utf-8"), page))

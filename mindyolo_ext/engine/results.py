"""``results.csv``: one row per epoch, readable while the run goes on."""

import csv
import os
from pathlib import Path


class ResultsFile:
    """Rows of an epoch each; a resumed run drops the rows it is about to write again.

    Args:
        path: of the csv file.
        keep_before: epochs below it keep their rows; 0 starts a new file.
    """

    def __init__(self, path: Path, keep_before: int = 0):
        self.path = path
        self.rows: list[dict[str, str]] = []
        if keep_before and path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                self.rows = [r for r in csv.DictReader(file) if int(r["epoch"]) < keep_before]

    def add(self, row: dict[str, float | int]) -> None:
        """Append a row; new columns may appear later (metrics of the first evaluation)."""
        self.rows.append(
            {k: f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in row.items()}
        )
        columns = list(dict.fromkeys(name for r in self.rows for name in r))
        temporary = self.path.with_suffix(".csv.tmp")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(temporary, self.path)

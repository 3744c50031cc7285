"""``results.csv``: one row per epoch, readable during the run."""

import csv
import io
import logging
from pathlib import Path

from mindyolo_ext.atomic import write_text
from mindyolo_ext.errors import DataError

logger = logging.getLogger(__name__)


class ResultsFile:
    """A table with a row per epoch; a resumed run drops the rows that it will write again.

    Args:
        path: of the csv file.
        keep_before: epochs below it keep their rows; 0 starts a new file.

    Raises: DataError if the rows to keep are not as a run writes them.
    """

    def __init__(self, path: Path, keep_before: int = 0):
        self.path = path
        self.rows: list[dict[str, str]] = []
        if keep_before:
            self.rows = [row for row in _read(path) if int(row["epoch"]) < keep_before]
            if len(self.rows) < keep_before:
                logger.warning(
                    "%s: has rows for %d of the %d finished epochs; the others are lost",
                    path,
                    len(self.rows),
                    keep_before,
                )

    def add(self, row: dict[str, float | int]) -> None:
        """Append a row; new columns may appear later (metrics of the first evaluation).

        Raises: WriteError if writing fails.
        """
        self.rows.append(
            {k: f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in row.items()}
        )
        columns = list(dict.fromkeys(name for r in self.rows for name in r))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())


def _read(path: Path) -> list[dict[str, str]]:
    """Read the rows of a results file, none if it is missing. Raises: DataError if damaged."""
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if "epoch" not in (reader.fieldnames or []):
                raise _damaged(path, 1, f"wanted a column epoch, got {reader.fieldnames}")
            rows: list[dict[str, str]] = []
            for row in reader:
                _check(path, reader.line_num, row, rows)
                rows.append(row)
    except (csv.Error, UnicodeDecodeError) as error:
        raise _damaged(path, 1, f"it is not a text table ({error})") from error
    return rows


def _check(path: Path, line: int, row: dict, before: list[dict[str, str]]) -> None:
    """Raises: DataError unless ``row`` holds numbers and follows the rows ``before``."""
    if None in row or None in row.values():
        raise _damaged(path, line, "wanted as many cells as columns")
    if not row["epoch"].isdecimal():
        raise _damaged(path, line, f"epoch wanted a whole number, got {row['epoch'][:40]!r}")
    for column, text in row.items():
        try:
            float(text or "nan")
        except ValueError:
            raise _damaged(path, line, f"{column} wanted a number, got {text[:40]!r}") from None
    if before and int(row["epoch"]) <= int(before[-1]["epoch"]):
        raise _damaged(path, line, f"epoch {row['epoch']} comes after {before[-1]['epoch']}")


def _damaged(path: Path, line: int, problem: str) -> DataError:
    """Create the error for a file that was changed."""
    return DataError(
        f"{path}:{line}: {problem}; was it edited? Fix the line, or move the file away: the run "
        "then continues without the old rows"
    )

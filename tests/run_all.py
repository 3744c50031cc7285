"""Run all tests with all cases, one process after the other: `make test-all`.

Every part of tests/parts.py runs, even if an earlier one failed. The end shows a line for each part
and what is missing in the ledger of tests/golden. Arguments are passed to pytest; with any, the
ledger is not checked.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ledger
from helpers import shared_folder
from parts import PARTS

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 10.0  # GB of one process
NO_TESTS = 5  # status of pytest


def run_part(part: str, record: Path, arguments: list[str]) -> tuple[bool, str]:
    """Run one process; returns whether it passed, and its line of the summary."""
    command = [sys.executable, "-m", "pytest", "--all-cases", "--part", part]
    begin = time.monotonic()
    process = subprocess.Popen(
        [*command, f"--record={record}", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    last = ""
    for line in process.stdout:
        print(line, end="", flush=True)
        last = line.strip() or last
    _, status, usage = os.wait4(process.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    process.returncode = code
    size = usage.ru_maxrss / 2**20
    good = code in (0, NO_TESTS) and size <= LIMIT
    minutes = (time.monotonic() - begin) / 60
    verdict = "ok" if good else f"over {LIMIT:g} GB" if code in (0, NO_TESTS) else f"status {code}"
    return good, f"{part:36} {verdict:12} {minutes:6.1f} min {size:6.2f} GB  {last}"


def main(arguments: list[str]) -> int:
    found, record = [], ledger.Record()
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            print(f"\n==== {part}", flush=True)
            reads = Path(folder) / f"{len(found)}.json"
            found.append(run_part(part, reads, arguments))
            if reads.is_file():
                record.merge(json.loads(reads.read_text(encoding="utf-8")))
    print("\n==== summary")
    print(*(line for _, line in found), sep="\n")
    missing = (
        []
        if arguments
        else ledger.missing(record, all_cases=True, shared=shared_folder() is not None)
    )
    print(*(f"ledger: {line}" for line in missing), sep="\n", end="")
    return 0 if all(good for good, _ in found) and not missing else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

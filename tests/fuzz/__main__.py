"""``python -m tests.fuzz``: many mutants with a table, or one of them in detail."""

import argparse
import os
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from .formats import MAKERS, make, write
from .runner import Mutant, judged, plan, run
from .verdict import FORBIDDEN

KEPT = Path(tempfile.gettempdir()) / "mindyolo_ext_fuzz"


def main(arguments: list[str]) -> int:
    """Exit status 0 if nothing forbidden happened."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="mutants, the formats in turn")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other mutants")
    parser.add_argument("--format", choices=list(MAKERS), help="only this format")
    parser.add_argument("--number", type=int, help="only this mutant of --format")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    parser.add_argument("--page", type=Path, help="put the table between the marks of this page")
    parser.add_argument("--keep", type=Path, default=KEPT, help="folder for files that failed")
    args = parser.parse_args(arguments)
    if args.number is not None:
        if args.format is None:
            parser.error("--number needs --format")
        return _one(Mutant(args.format, args.seed, args.number), args.keep)
    formats = [args.format] if args.format else list(MAKERS)
    start = time.monotonic()
    report = run(plan(args.count, args.seed, formats), jobs=args.jobs)
    print(f"\n{report.table()}")
    facts = f"Seed {args.seed}, {time.monotonic() - start:.0f} s in {args.jobs} processes"
    print(facts)
    if args.page:
        _put(f"{report.table('github')}\n\n{facts}, {date.today()}.", args.page)
    if report.ok:
        return 0
    report.keep(args.keep)
    print(f"\n{len(report.findings)} faults, their files are in {args.keep}:\n{report.faults()}")
    return 1


def _put(text: str, page: Path) -> None:
    """Replace the text between the marks of ``page``."""
    before, mark, rest = page.read_text(encoding="utf-8").partition("<!-- fuzz -->\n")
    _, end, after = rest.partition("<!-- /fuzz -->")
    if not mark or not end:
        raise SystemExit(f"{page}: wanted the marks <!-- fuzz --> and <!-- /fuzz -->")
    page.write_text(f"{before}{mark}{text}\n{end}{after}", encoding="utf-8")


def _one(mutant: Mutant, folder: Path) -> int:
    """Try one mutant and keep its files."""
    place = folder / f"{mutant.format}-{mutant.seed}-{mutant.number}"
    write(make(*mutant), place)
    ((_, verdict),) = judged([mutant])
    print(f"{place}\n{verdict.verdict}: {verdict.seconds:.2f} s, {verdict.bytes >> 20} MB")
    print(verdict.place, verdict.text, sep="\n")
    return 1 if verdict.verdict in FORBIDDEN else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The ledger of the reference arrays: which check compares which array, and whether it did.

``ledger.json`` names one check for every array of tests/golden: check -> files -> arrays, the last
two as patterns of ``fnmatch``; a file that is read as a whole has the single entry ``""``. During
the tests, ``Record`` notes what each test really reads, and a complete run fails if a check did not
read an array that the ledger assigns to it.

``python tests/ledger.py`` prints the ledger with the suite of every entry.
"""

import ast
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from itertools import groupby
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parent
FOLDER = TESTS / "golden"
FILE = TESTS / "ledger.json"
NOT_COMPARED = "not compared"  # in place of a check; the arrays are listed below the reason
NEEDS_SHARED = {"yolo_fastestv2/real_weights.npz", "yolo_fastestv2/real_weights_ncnn.npz"}
NEEDS_SHARED |= {"map_coco_val128.json"}  # compared where the published weights and photos are
Entry = tuple[str, str]  # file relative to the folder, array in it; "" is the whole file


@dataclass
class Record:
    """What each test has read: ``file::test`` -> entries."""

    test: str = ""
    reads: dict[str, set[Entry]] = field(default_factory=dict)

    def add(self, path: Path, name: str = "") -> None:
        """Note that the running test reads an array of ``path``, or the whole file."""
        if path.is_relative_to(FOLDER):
            entry = path.relative_to(FOLDER).as_posix(), name
            self.reads.setdefault(self.test, set()).add(entry)

    def watch_files(self) -> None:
        """Note every file of the folder that Python opens, for the rest of the process."""
        folder = str(FOLDER)

        def hook(event: str, arguments: tuple) -> None:
            if event == "open" and str(arguments[0]).startswith(folder):
                self.add(Path(str(arguments[0])))

        sys.addaudithook(hook)

    def merge(self, reads: dict[str, Iterable[Iterable[str]]]) -> None:
        """Add the record of another process, as ``plain`` returns it."""
        for test, entries in reads.items():
            self.reads.setdefault(test, set()).update((file, name) for file, name in entries)

    def plain(self) -> dict[str, list[list[str]]]:
        """The record in JSON's types."""
        return {test: sorted(map(list, entries)) for test, entries in self.reads.items()}


class Arrays(dict):
    """Arrays of one file by name; looking one up is noted."""

    def __init__(self, path: Path, record: Record):
        with np.load(path) as file:
            super().__init__(file)
        self.path, self.record = path.resolve(), record

    def __getitem__(self, name: str) -> np.ndarray:
        self.record.add(self.path, name)
        return super().__getitem__(name)

    def get(self, name: str, default: object = None) -> object:
        if name not in self:
            return default
        return self[name]

    def below(self, prefix: str) -> "Arrays":
        """The arrays whose names start with a prefix, by the rest of their names."""
        return _Below(self, prefix)


class _Below(Arrays):
    def __init__(self, arrays: Arrays, prefix: str):
        dict.__init__(
            self,
            {n.removeprefix(prefix): a for n, a in dict.items(arrays) if n.startswith(prefix)},
        )
        self.arrays, self.prefix = arrays, prefix

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[self.prefix + name]


@dataclass(frozen=True)
class Row:
    """One line of the ledger."""

    check: str  # "models/yolox/test_loss.py::test_loss", without the test where a fixture reads
    files: str
    arrays: str

    def names(self, entry: Entry) -> bool:
        return fnmatchcase(entry[0], self.files) and fnmatchcase(entry[1], self.arrays)


def rows() -> Iterator[Row]:
    """All lines."""
    for check, files in json.loads(FILE.read_text(encoding="utf-8")).items():
        for pattern, arrays in files.items():
            for name in arrays:
                yield Row(check, pattern, name)


@cache
def entries() -> tuple[Entry, ...]:
    """Every array in the folder; for files other than .npz, the file."""
    found = []
    for path in sorted(FOLDER.rglob("*")):
        relative = path.relative_to(FOLDER).as_posix()
        if path.suffix == ".npz" and path.name != "const.npz":
            with np.load(path) as file:
                found += [(relative, name) for name in file.files]
        elif path.is_file() and path.suffix != ".md":
            found.append((relative, ""))
    return tuple(found)


@cache
def checks() -> dict[Entry, tuple[str, ...]]:
    """The checks that the ledger names for each entry; there should be one."""
    found = {}
    lines = tuple(rows())
    for file, group in groupby(entries(), key=lambda entry: entry[0]):
        near = [row for row in lines if fnmatchcase(file, row.files)]
        for entry in group:
            found[entry] = tuple(row.check for row in near if row.names(entry))
    return found


@cache
def statements(module: str) -> tuple[ast.stmt, ...]:
    """The statements at the top level of a test module."""
    return tuple(ast.parse((TESTS / module).read_text(encoding="utf-8")).body)


@cache
def quick_variants(module: str) -> tuple[str, ...] | None:
    """``QUICK_VARIANTS`` of a test module: the variants that the quick suite compares."""
    for node in statements(module):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "QUICK_VARIANTS":
            return ast.literal_eval(node.value)
    return None


@cache
def marked_all_cases(module: str) -> tuple[str, ...]:
    """The tests of a module that need --all-cases whatever their case."""
    return tuple(
        node.name
        for node in statements(module)
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(mark) == "pytest.mark.all_cases" for mark in node.decorator_list)
    )


def suite_of(entry: Entry, check: str) -> str:
    """``quick`` for `make test`, ``all cases`` for `make test-all` alone, ``none``."""
    if check.startswith(NOT_COMPARED):
        return "none"
    module, _, test = check.partition("::")
    if test in marked_all_cases(module):
        return "all cases"
    quick = quick_variants(module)
    parts = Path(entry[0]).parent.as_posix().partition("/")  # family, variant
    return "quick" if quick is None or not parts[2] or parts[2] in quick else "all cases"


def missing(record: Record, *, all_cases: bool, shared: bool) -> list[str]:
    """What a complete run should have compared and did not."""
    by_file: dict[str, set[Entry]] = {}
    for test, found in record.reads.items():
        by_file.setdefault(test.partition("::")[0], set()).update(found)
    found = []
    for entry, (check,) in checks().items():
        if check.startswith(NOT_COMPARED) or (not shared and entry[0] in NEEDS_SHARED):
            continue
        if not all_cases and suite_of(entry, check) != "quick":
            continue
        read = record.reads.get(check, ()) if "::" in check else by_file.get(check, ())
        if entry not in read:
            found.append(f"{entry[0]} {entry[1]}: not read by {check}")
    return found


if __name__ == "__main__":
    for one, (name,) in checks().items():
        print(f"{suite_of(one, name):9}  {' '.join(one):70}  {name}")

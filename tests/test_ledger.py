"""The ledger of tests/golden: every array has one check, and every check that it names exists."""

import ast
from types import SimpleNamespace

import ledger
import numpy as np
import pytest
from helpers import Golden


def test_every_array_has_exactly_one_check():
    wrong = [
        f"{' '.join(entry)}: {found}" for entry, found in ledger.checks().items() if len(found) != 1
    ]
    assert not wrong, "\n".join(wrong)


def test_every_line_names_an_array_and_a_check():
    entries = ledger.entries()
    for row in ledger.rows():
        assert any(row.names(entry) for entry in entries), f"nothing is left of {row}"
        if row.check.startswith(ledger.NOT_COMPARED):
            continue
        module, _, test = row.check.partition("::")
        functions = {
            node.name for node in ledger.statements(module) if isinstance(node, ast.FunctionDef)
        }
        assert not test or test in functions, f"{row}: no such test"


def test_no_check_is_of_one_backend_alone():
    """Otherwise a complete run on the other backend would fail."""
    of_one = {"needs_mindspore", "needs_torch"}
    for row in ledger.rows():
        module, _, test = row.check.partition("::")
        for node in () if row.check.startswith(ledger.NOT_COMPARED) else ledger.statements(module):
            if isinstance(node, ast.FunctionDef) and test in ("", node.name):
                marks = {m.attr for d in node.decorator_list for m in attributes(d)}
                assert not test or not marks & of_one, row.check
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
                assert not {m.attr for m in attributes(node)} & of_one, row.check


def attributes(tree):
    return (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))


class Config:
    """Stands in for pytest's, of a complete run with --all-cases."""

    def __init__(self, key, record, output):
        self.stash = {key: record}
        self.output = output

    def getoption(self, name):
        return name == "--all-cases"

    def get_terminal_writer(self):
        return SimpleNamespace(line=self.output.append)


@pytest.mark.parametrize("reads_all", [True, False])
def test_a_whole_run_that_does_not_read_an_array_fails(reads_all, request, monkeypatch):
    (conftest,) = (
        plugin
        for plugin in request.config.pluginmanager.get_plugins()
        if getattr(plugin, "__file__", None) == str(ledger.TESTS / "conftest.py")
    )
    record, output = ledger.Record(), []
    for entry, (check,) in ledger.checks().items():
        record.reads.setdefault(check, set()).add(entry)
        record.reads.setdefault(f"{check.partition('::')[0]}::any", set()).add(entry)
    left_out = "yolox/yolox_x/case_seed0.npz", "grad_l2"  # of a variant that only --all-cases runs
    if not reads_all:
        for found in record.reads.values():
            found.discard(left_out)
    monkeypatch.setattr(conftest, "is_whole", lambda _: True)
    session = SimpleNamespace(config=Config(conftest.RECORD, record, output), exitstatus=0)
    conftest.pytest_sessionfinish(session, 0)
    assert session.exitstatus == (0 if reads_all else pytest.ExitCode.TESTS_FAILED)
    assert [" ".join(left_out) in line for line in output] == ([] if reads_all else [True])


def test_the_quick_suite_compares_all_of_the_smallest_variants():
    smallest = {"dy_yolov7_w0125", "gold_yolo_n", "resnet18_025", "yolo_fastestv2", "yolox_nano"}
    found = set()
    for entry, (check,) in ledger.checks().items():
        if variant := smallest & set(entry[0].split("/")[1:-1]):
            # Gold-YOLO's second trajectory is chaotic and compared within 60 %
            chaotic = check.endswith("::test_trajectory_with_statistics_of_the_batch")
            assert ledger.suite_of(entry, check) != "all cases" or chaotic, entry
            found |= variant
    assert found == smallest


@pytest.mark.parametrize("look_up", [True, False])
def test_an_array_that_no_test_reads_is_missed(look_up, monkeypatch, tmp_path):
    monkeypatch.setattr(ledger, "FOLDER", tmp_path)
    monkeypatch.setattr(ledger, "checks", lambda: {("x.npz", "a_b"): ("test_x.py::test_it",)})
    monkeypatch.setattr(ledger, "suite_of", lambda *_: "quick")
    np.savez(tmp_path / "x.npz", a_b=np.zeros(2))
    record = ledger.Record(test="test_x.py::test_it")
    arrays = Golden(tmp_path, record).arrays("x.npz")
    assert "a_b" in arrays  # without a lookup
    if look_up:
        assert arrays.below("a_")["b"].shape == (2,)
    found = ledger.missing(record, all_cases=False, shared=False)
    assert found == ([] if look_up else ["x.npz a_b: not read by test_x.py::test_it"])
    other = ledger.Record()
    other.merge(record.plain())
    assert ledger.missing(other, all_cases=True, shared=True) == found

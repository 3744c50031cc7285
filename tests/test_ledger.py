"""The ledger of tests/golden: every array has one check, and every check that it names is there."""

import ast

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


def test_the_quick_suite_compares_all_of_the_smallest_variants():
    smallest = {"dy_yolov7_w0125", "gold_yolo_n", "resnet18_025", "yolo_fastestv2", "yolox_nano"}
    found = set()
    for entry, (check,) in ledger.checks().items():
        if variant := smallest & set(entry[0].split("/")[1:-1]):
            assert ledger.suite_of(entry, check) != "all cases", entry
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
    assert "a_b" in arrays  # no look-up
    if look_up:
        assert arrays.below("a_")["b"].shape == (2,)
    found = ledger.missing(record, all_cases=False, shared=False)
    assert found == ([] if look_up else ["x.npz a_b: not read by test_x.py::test_it"])
    other = ledger.Record()
    other.merge(record.plain())
    assert ledger.missing(other, all_cases=True, shared=True) == found

"""benchmarks/truth_theirs.py: what is kept of a training of an original. Needs PyTorch."""

import csv
import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
from launching import ROOT

torch = pytest.importorskip("torch")


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("truth_theirs")


def test_weights_are_kept_every_few_epochs_and_in_the_end(theirs: ModuleType, tmp_path: Path):
    record = theirs.Record({"folder": str(tmp_path), "every": 2, "epochs": 5})
    record.network = torch.nn.Linear(1, 1)
    for epoch in range(5):
        with torch.no_grad():
            record.network.weight.fill_(epoch + 1)
        record.end_epoch()
    kept = sorted(tmp_path.glob("*.pth"))
    assert [file.stem for file in kept] == ["epoch_002", "epoch_004", "epoch_005"]
    assert [float(torch.load(file)["weight"]) for file in kept] == [2, 4, 5]


def test_losses_of_all_steps_are_kept(theirs: ModuleType, tmp_path: Path):
    record = theirs.Record({"folder": str(tmp_path), "every": 1, "epochs": 1})
    record.losses += [[3.0, 1.0], [2.0, 0.5]]
    record.save(("total", "box"))
    with (tmp_path / "losses.csv").open() as file:
        assert list(csv.reader(file)) == [
            ["step", "total", "box"],
            ["0", "3.0", "1.0"],
            ["1", "2.0", "0.5"],
        ]


def test_the_warmup_has_no_floor_and_an_update_takes_one_batch(theirs: ModuleType):
    largest = theirs.without_floor()
    assert largest(12, 1000) == 12  # iterations of the warm-up
    assert largest(4, 1) == largest(1, 4.0) == 1  # batches of an update
    assert largest(5, 32) == 32
    assert largest([3, 1000]) == 1000
    assert largest([], default=7) == 7


def test_a_stand_in_does_not_replace_what_is_installed(
    theirs: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    missing = "no_such_package_here"
    monkeypatch.setitem(sys.modules, missing, None)  # so that it goes again
    theirs.builder("yolox")  # which loads the stand-ins
    theirs.stand_in("csv", missing)
    assert importlib.import_module("csv") is csv
    assert sys.modules[missing].anything() is None

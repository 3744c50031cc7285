"""Two thousand mutants of every format; ``make fuzz`` tries fifty thousand."""

from pathlib import Path

import pytest

if not Path("/proc/self/status").exists():
    pytest.skip("memory is measured and limited as on Linux", allow_module_level=True)

from fuzz.faulty import FAULTS
from fuzz.formats import MAKERS, make, sound, write
from fuzz.readers import readings
from fuzz.runner import Mutant, judged, plan, run
from fuzz.verdict import ACCEPTED, REFUSED

MUTANTS = 2000


@pytest.mark.all_cases
def test_mutants():
    report = run(plan(MUTANTS, seed=0))
    assert sum(sum(row.counts.values()) for row in report.rows.values()) == MUTANTS
    for name, row in report.rows.items():  # neither unchanged nor destroyed
        for verdict in (ACCEPTED, REFUSED):
            assert row.counts.get(verdict, 0) >= 3, f"{name}: {row.counts}"
    assert report.ok, f"\n{report.table()}\n{report.faults()}"


@pytest.mark.all_cases
def test_every_fault_is_noticed():
    """The mutant after one that ended the process is judged, too."""
    mutants = [Mutant(name, 0, 0) for name in FAULTS]
    found = {mutant.format: verdict for mutant, verdict in judged(mutants, "tests.fuzz.faulty")}
    assert {name: verdict.verdict for name, verdict in found.items()} == {
        name: wanted for name, (_, wanted) in FAULTS.items()
    }
    assert set(FAULTS) == set(MAKERS)


@pytest.mark.parametrize("name", MAKERS)
def test_sound_files_are_accepted(name: str, tmp_path: Path):
    for number in range(5):
        folder = tmp_path / str(number)
        write(sound(name, number), folder)
        next(iter(readings(name, folder)))()  # raises if it is refused


@pytest.mark.parametrize("name", MAKERS)
def test_a_mutant_can_be_made_again(name: str):
    mutants = [make(name, 1, number) for number in range(20)]
    assert mutants == [make(name, 1, number) for number in range(20)]
    assert mutants != [make(name, 2, number) for number in range(20)]

"""docs/adding_a_family.md is correct: its family trains, evaluates, exports and converts."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from launching import ROOT, environment

from mindyolo_ext.data.shapes import make_shapes_dataset

PAGE = (ROOT / "docs" / "adding_a_family.md").read_text(encoding="utf-8")
FILE = re.compile(r"^\*\*`(\S+)`\*\*\n\n```\w+\n(.*?)^```$", re.S | re.M)
COMMAND = re.compile(r"^\$ (.+)$", re.M)
# What the page's commands leave behind
RESULTS = ("run/weights/best.ckpt", "run/results.png", "toy.onnx", "toy.pth", "toy.ckpt")


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A copy of this repository with the files of the page."""
    folder = tmp_path_factory.mktemp("house")
    for name in ("mindyolo_ext", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "test.py"):
        shutil.copy(ROOT / name, folder)
    for path, text in FILE.findall(PAGE):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    make_shapes_dataset(
        folder / "shapes", train_images=64, val_images=16, size=(64, 64), progress=False
    )
    return folder


def started(folder: Path, *command: str) -> str:
    """Run a command in the copy and return its output; fail with it if the command does."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**environment(), "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def test_the_page_prints_every_file_of_a_family():
    printed = {Path(path).name for path, _ in FILE.findall(PAGE)}
    assert printed >= {
        "__init__.py",
        "variants.py",
        "network.py",
        "loss.py",
        "names.py",
        "reference.py",
        "augment.py",
    }


@pytest.mark.all_cases
def test_the_commands_of_the_page(house):
    commands = COMMAND.findall(PAGE)
    assert [command.split()[1] for command in commands] == [
        "train.py",
        "test.py",
        "assign",
        "export",
        "convert",
        "convert",
    ]
    for command in commands:
        program, *arguments = shlex.split(command)
        if program == "mindyolo-ext":
            arguments = ["-m", "mindyolo_ext.cli", *arguments]
        started(house, *arguments)
    assert [name for name in RESULTS if not (house / name).is_file()] == []
    assert len(list((house / "drawn").glob("*.png"))) == 4
    rows = (house / "run" / "results.csv").read_text(encoding="utf-8").splitlines()
    losses = [float(row.split(",")[rows[0].split(",").index("loss")]) for row in rows[1:]]
    assert losses[-1] < 0.8 * losses[0], "the loss did not fall"


def test_the_family_keeps_the_contracts(house):
    tests = house / "tests"
    (tests / "models").mkdir(parents=True)
    for path in (ROOT / "tests").glob("*.py"):
        shutil.copy(path, tests)
    shutil.copy(ROOT / "tests" / "models" / "test_contracts.py", tests / "models")
    (tests / "golden").mkdir()
    (house / "docs").mkdir()
    (house / "docs" / "toy.md").write_text("# Toy\n", encoding="utf-8")
    options = ("-q", "--import-mode=importlib", "-o", "pythonpath=tests", "-p", "no:cacheprovider")
    files = "tests/models/test_contracts.py"
    said = started(house, "-m", "pytest", *options, files, "-k", "toy")
    assert re.search(r"(\d+) passed", said) and int(re.search(r"(\d+) passed", said)[1]) >= 10

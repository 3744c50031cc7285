"""benchmarks/cuda_check.py, small and on the CPU: all parts run, and failures are reported."""

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from launching import ROOT, environment

from mindyolo_ext.errors import DeviceError

pytestmark = pytest.mark.needs_torch
CHECK = ROOT / "benchmarks" / "cuda_check.py"
MARKS = "<!-- cuda -->", "<!-- end of cuda -->"


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A module of benchmarks/ by name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


def run(*arguments: object, path: Path = ROOT) -> subprocess.CompletedProcess:
    """Run the script in a separate process, with the modules below ``path``."""
    return subprocess.run(
        [sys.executable, str(CHECK), *map(str, arguments)],
        env={**environment(), "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_every_part_runs_on_a_cpu(tmp_path: Path) -> None:
    page, numbers = tmp_path / "page.md", tmp_path / "numbers.json"
    page.write_text(f"# Kept\n\n{MARKS[0]}\nof before\n{MARKS[1]}\n\nalso kept\n", encoding="utf-8")
    done = run("--device", "cpu", "--quick", "--page", page, "--json", numbers)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(numbers.read_text(encoding="utf-8"))
    parts = found["parts"]
    assert list(parts) == ["golden", "steps", "amp", "ranks", "latency", "speed"]
    assert {row["state"] for rows in parts.values() for row in rows} == {"ok"}
    assert not any(sum(row["differences"]) for row in parts["steps"]), "the CPU against itself"
    assert parts["ranks"][0]["found"] == "gloo, 1 rank, 0.0e+00 apart"
    assert len(parts["speed"]) == 6 and all(row["images_per_second"] > 0 for row in parts["speed"])
    text = page.read_text(encoding="utf-8")
    before, own, after = text.partition(MARKS[0])[0], *text.split(MARKS[0])[1].split(MARKS[1])
    assert before == "# Kept\n\n" and after.endswith("also kept\n") and "of before" not in own
    for row in (row for rows in parts.values() for row in rows):
        assert f"| {row['what']} | {row['found']} |" in own


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        (("--repo", "yolox=nowhere"), 2, "nowhere: no clone of this original, it has no yolox/"),
        (("--repo", "yolov9=here"), 2, "got yolov9=here, wanted FAMILY=CLONE, yolox or gold_yolo"),
        (("speeed",), 2, "invalid choice: 'speeed'"),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...], status: int, message: str) -> None:
    done = run(*arguments)
    assert done.returncode == status and message in done.stderr


def test_without_a_gpu_the_program_says_so() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run()
    assert done.returncode == 1 and done.stderr.startswith("--device_target GPU: this PyTorch")
    assert done.stderr.count("\n") == 1


def test_an_old_pytorch_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "torch-2.3.1.dist-info").mkdir()
    (tmp_path / "torch-2.3.1.dist-info" / "METADATA").write_text("Name: torch\nVersion: 2.3.1\n")
    done = run("--device", "cpu", "--quick", path=tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "requires PyTorch 2.4 or later, got 2.3.1: `pip install" in done.stderr


@pytest.fixture
def part(program, tmp_path):
    """A part without a started process, and its rows."""
    parts = program("cuda_parts")
    rows = []

    class Answers:
        def write(self, line: str) -> None:
            rows.append(json.loads(line))

        def flush(self) -> None:
            pass

    settings = {"device": "cpu", "quick": True, "seconds": 60.0, "folder": str(tmp_path)}
    return parts.Part(settings, Answers()), rows


def test_a_row_that_fails_has_its_reason_and_the_next_one_goes_on(part) -> None:
    def fails(error: Exception) -> dict:
        raise error

    its, rows = part
    its.row("bad", lambda: fails(ValueError("no number\nat all")))
    its.row("large", lambda: fails(DeviceError("step: not enough device memory; less (x)")))
    its.row("good", lambda: {"found": "1 s"})
    its.end = time.monotonic() + 5
    its.row("long", lambda: fails(ValueError("never called")), needs=10.0)
    assert [(row["what"], row["state"], row["found"]) for row in rows] == [
        ("bad", "failed", "ValueError: no number"),
        ("large", "out of memory", "DeviceError: step: not enough device memory; less (x)"),
        ("good", "ok", "1 s"),
        ("long", "skipped", "no time left"),
    ]


@pytest.mark.parametrize(
    "states, status", [(["ok", "out of memory", "skipped"], 0), (["failed"], 1), (["stopped"], 1)]
)
def test_the_status_says_whether_anything_failed(program, monkeypatch, capsys, states, status):
    check = program("cuda_check")
    about = [{"what": "about", "state": "ok", "versions": {}}]
    monkeypatch.setattr(check, "_worker", lambda *_: about)

    def three(its, name):
        its.add(name, *({"what": "x", "state": state} for state in states))

    monkeypatch.setattr(check, "PARTS", {"steps": (1.0, three), "speed": (1e6, three)})
    monkeypatch.setattr(sys, "argv", ["cuda_check.py"])
    assert check.main() == status
    printed = capsys.readouterr().out
    assert "speed    skipped       the whole part: no time left" in printed


@pytest.mark.parametrize(
    "line, seconds, state, reason",
    [
        ("raise SystemExit('boom')", 60.0, "failed", "boom"),
        ("import time; time.sleep(60)", 1.0, "stopped", "the time was over"),
    ],
)
def test_a_process_that_breaks_or_hangs(
    program, monkeypatch, tmp_path, line, seconds, state, reason
):
    """Its earlier rows are kept."""
    check = program("cuda_check")
    row = json.dumps({"what": "first", "state": "ok"})
    (tmp_path / "cuda_parts.py").write_text(f"print('''{row}''', flush=True)\n{line}\n")
    monkeypatch.setattr(check, "HERE", tmp_path)
    options = check.argparse.Namespace(device="cpu", quick=True)
    its = check.Check(options, tmp_path, time.monotonic() + seconds)
    rows = check._worker(its, "speed", lambda _: None)
    assert [(r["what"], r["state"]) for r in rows] == [("first", "ok"), ("the rest", state)]
    assert rows[1]["found"] == reason


def test_a_test_that_fails_is_named_with_its_distance(program, monkeypatch, tmp_path):
    check = program("cuda_check")
    options = check.argparse.Namespace(device="cpu", quick=True)
    its = check.Check(options, tmp_path, time.monotonic() + 60)
    (tmp_path / "yolox.xml").write_text(
        "<testsuites><testsuite><testcase name='right'/><testcase name='left'><skipped/></testcase>"
        "<testcase name='wrong'><failure message='Mismatch&#10;Max absolute difference among "
        "violations: 3e-05&#10;more'/></testcase></testsuite></testsuites>"
    )
    monkeypatch.setattr(check.subprocess, "run", lambda *_, **__: None)
    assert check._tested(its, "yolox") == {
        "what": "yolox",
        "state": "failed",
        "found": "1 of 2 tests pass: wrong: Max absolute difference among violations: 3e-05",
        "wanted": "all",
    }


@pytest.mark.parametrize(
    "loss, error, state, found",
    [
        (
            10.1,
            "",
            "ok",
            "40.0 images/s, 3.00 GB; ours 2.00 times as fast, first losses 9.9e-03 ap",
        ),
        (11.0, "", "failed", "40.0 images/s, 3.00 GB; ours 2.00 times as fast, first losses 9.1e-"),
        (0.0, "torch.OutOfMemoryError: CUDA out of memory.", "out of memory", "torch.OutOfMemoryE"),
        (0.0, "ValueError: no such scale", "failed", "ValueError: no such scale"),
    ],
)
def test_an_original_beside_ours(program, loss, error, state, found):
    check = program("cuda_check")

    def worker(job: str, **arguments: object) -> dict:
        assert job == "timed_training" and arguments["size"] == 640
        if error:
            raise RuntimeError(f"step: in the worker:\nTraceback:\n  x\n{error}\n\nlog: Error\n")
        return {"images_per_second": 40.0, "gigabytes": 3.0, "first_loss": loss}

    peer = {"weights": {}, "batch": "b.npz", "half": "", "model": "dy_yolov7"}
    ours = {"images_per_second": 80.0, "first_loss": 10.0, "for_peer": peer}
    its = check.Check(check.argparse.Namespace(device="cuda", quick=False), ROOT, 0.0)
    row = check._original(its, worker, ours)
    assert row["state"] == state and row["found"].startswith(found)

"""Check the PyTorch backend on a GPU: numbers, precision, ranks, speed and memory.

    python benchmarks/cuda_check.py [PART ...] [--minutes 8] [--json FILE]
        [--page docs/benchmarks.md] [--repo FAMILY=CLONE ...] [--torch-python PYTHON]
        [--device cpu --quick]

Every part runs in a separate process. A failure is a row with its reason, the other parts continue,
and the exit status is 1. Parts that do not fit into the time are skipped, as the table says.
``--repo yolox=../YOLOX`` also times that original on the same GPU.
"""

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measuring import CLONES, Worker, write_sections

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
REPOS = ("yolox", "gold_yolo", "dynamicdet")
# For each family, the stored cases of its smallest variant, as pytest selects them
GOLDEN = {
    "yolo_fastestv2": "yolo_fastestv2-case",
    "yolox": "yolox_nano-case",
    "gold_yolo": "gold_yolo_n-case or gold_yolo_n/",
    "dynamicdet": "dy_yolov7_w0125-case",
    "simple_yolo": "resnet18_025-case",
}
# Without arrays of several steps: rounding grows from one to the next, see ``steps``
ONE_STEP = "not five_steps and not trajectory and not router"
FAMILY_OF = {"yolox": "yolox", "gold": "gold_yolo", "dy": "dynamicdet"}
GAIN_SIZES = {"dy_yolov7": 640, "dy_yolov7_w0125": 256}  # whose recipe sets the loss's gains
# Relative distance of our first loss from the original's by precision: with fewer digits some boxes
# are matched with other predictions. On a GPU float32's convolutions have TF32's
SAME_LOSS = {"": 0.02, "float16": 0.05}
BAD = ("failed", "stopped")
Row = dict[str, Any]


@dataclass
class Check:
    """The options, and the rows of all parts so far."""

    options: argparse.Namespace
    folder: Path
    end: float
    rows: dict[str, list[Row]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def add(self, part: str, *rows: Row) -> None:
        """Keep rows and print them."""
        self.rows.setdefault(part, []).extend(rows)
        for row in rows:
            found = row.get("found", "")
            print(f"{part:8} {row['state']:13} {row['what']}: {found}", flush=True)


def main() -> int:
    """Run the requested parts; returns the exit status."""
    options = _parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="cuda_check_") as folder:
        check = Check(options, Path(folder), time.monotonic() + 60 * options.minutes)
        first = _worker(check, "about", lambda _: None)[0]
        if first["state"] != "ok":
            print(first["found"], file=sys.stderr)
            return 1
        check.versions = first["versions"]
        for name, (needs, run) in PARTS.items():
            if options.parts and name not in options.parts:
                continue
            if check.left() < needs:
                check.add(name, _row("the whole part", "skipped", found="no time left"))
            else:
                run(check, name)
    _write(check)
    states = [row["state"] for rows in check.rows.values() for row in rows]
    print(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))
    return 1 if any(state in BAD for state in states) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Checks the PyTorch backend on a GPU.")
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        choices=[*PARTS, []],
        help=f"of {', '.join(PARTS)}; all if none is named",
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="few, small cases: is it all there?")
    parser.add_argument("--minutes", type=float, default=8.0, help="until all has to be done")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--page", type=Path, help="Markdown file; its section `cuda` is replaced")
    parser.add_argument(
        "--repo",
        action="append",
        default=[],
        metavar="FAMILY=CLONE",
        type=_repo,
        help=f"unchanged clone of an original to time beside ours, of {', '.join(REPOS)}",
    )
    parser.add_argument(
        "--torch-python", default=sys.executable, help="Python of the originals, this one if absent"
    )
    return parser


def _repo(text: str) -> tuple[str, Path]:
    """``FAMILY=CLONE``. Raises: ArgumentTypeError if it is none."""
    family, _, clone = text.partition("=")
    if family not in REPOS:
        raise argparse.ArgumentTypeError(f"got {text}, wanted FAMILY=CLONE, {' or '.join(REPOS)}")
    if not (Path(clone) / CLONES[family]).is_file():
        raise argparse.ArgumentTypeError(
            f"{clone}: no clone of this original, it has no {CLONES[family]}"
        )
    return family, Path(clone).resolve()


def _row(what: str, state: str, **cells: Any) -> Row:
    return {"what": what, "state": state, **cells}


# ---- parts ---------------------------------------------------------------------------------------


def golden(check: Check, name: str) -> None:
    """Compare with the originals' arrays, in the tests of each family's smallest variant."""
    families = list(GOLDEN)[:1] if check.options.quick else list(GOLDEN)
    for family in families:
        if check.left() < 15:
            check.add(name, _row(family, "skipped", found="no time left"))
        else:
            check.add(name, _tested(check, family))


def _tested(check: Check, family: str) -> Row:
    """The result of a family's golden tests on the device."""
    report = check.folder / f"{family}.xml"
    tests = [f"tests/models/{family}/test_{part}.py" for part in ("network", "loss")]
    if check.options.quick:
        tests = tests[:1]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    command += ["-k", f"({GOLDEN[family]}) and {ONE_STEP}", f"--junitxml={report}"]
    command += ["--device", "GPU" if check.options.device == "cuda" else "CPU"]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=_environment(),
            timeout=max(check.left(), 1),
            capture_output=True,
            text=True,
        )
    except subprocess.TimeoutExpired:
        return _row(family, "stopped", found="the time was over")
    if not report.is_file():
        return _row(family, "failed", found=_last_line(done.stdout + done.stderr))
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    bad = [case for case in cases if {part.tag for part in case} & {"failure", "error"}]
    skipped = [case for case in cases if case.find("skipped") is not None]
    good = len(cases) - len(bad) - len(skipped)
    reasons = "; ".join(f"{case.get('name')}: {_reason(case)}" for case in bad[:3])
    found = f"{good} of {good + len(bad)} tests pass" + (f": {reasons}" if reasons else "")
    return _row(family, "failed" if bad or not good else "ok", found=found, wanted="all")


def _reason(case: ElementTree.Element) -> str:
    """Why a test failed, in short."""
    part = case.find("failure") if case.find("failure") is not None else case.find("error")
    message = " ".join((part.get("message") or "").split())
    worst = re.search(r"Max (absolute|relative) difference[^:]*: \S+", message)
    return worst.group(0) if worst else message[:120]


def in_worker(check: Check, name: str) -> None:
    """Run a part of ``cuda_parts.py``; its rows are kept unchanged."""
    _worker(check, name, lambda row: check.add(name, row))


def speed(check: Check, name: str) -> None:
    """Our training steps, and those of the originals with a clone."""
    repos = dict(check.options.repo)
    keep = 0.5 if repos else 0.0  # of the time, for the originals
    ours = _worker(check, name, lambda row: check.add(name, _speed_row(row)), keep=keep)
    for family, clone in repos.items():
        rows = [row for row in ours if _family_of(row["what"]) == family and "for_peer" in row]
        _time_original(check, name, (family, clone), rows)


def _family_of(what: str) -> str:
    return FAMILY_OF[re.split("[_,]", what)[0]]


def _speed_row(row: Row) -> Row:
    """A row of our numbers in readable form."""
    if "images_per_second" in row:
        row["found"] = f"{row['images_per_second']:.1f} images/s, {row['gigabytes']:.2f} GB"
    return row


def _time_original(check: Check, name: str, repo: tuple[str, Path], rows: Sequence[Row]) -> None:
    """The same steps by the original; each row is compared with ours."""
    family, clone = repo
    threads = os.environ.get("OMP_NUM_THREADS") or str(len(os.sched_getaffinity(0)))
    command = [check.options.torch_python, str(HERE / "theirs.py"), family, str(clone), threads]
    worker = Worker(command, check.folder / f"{family}.log")
    guard = threading.Timer(max(check.left(), 1), worker.process.kill)
    guard.start()
    try:
        for row in rows:
            what = f"{row['what']}, the original"
            if check.left() < 15:
                check.add(name, _row(what, "skipped", found="no time left"))
            else:
                check.add(name, _row(what, **_original(check, worker, row)))
    finally:
        guard.cancel()
        worker.close()


def _original(check: Check, worker: Worker, ours: Row) -> Row:
    """State and numbers of the original's step, and the ratio to ours."""
    job = dict(ours["for_peer"])
    model = job.pop("model")
    more = {"size": GAIN_SIZES[model]} if model in GAIN_SIZES else {}
    try:
        peer = worker(
            "timed_training",
            **job,
            rate=1e-6,
            device=check.options.device,
            quick=check.options.quick,
            **more,
        )
    except RuntimeError as error:
        text = str(error)
        lacks = "out of memory" in text or "ALLOC_FAILED" in text
        return {"state": "out of memory" if lacks else "failed", "found": _error_of(text)}
    ratio = ours["images_per_second"] / peer["images_per_second"]
    apart = abs(ours["first_loss"] / peer["first_loss"] - 1)
    found = (
        f"{peer['images_per_second']:.1f} images/s, {peer['gigabytes']:.2f} GB; ours "
        f"{ratio:.2f} times as fast, first losses {apart:.1e} apart"
    )
    limit = SAME_LOSS[job["half"]]
    state = "ok" if apart <= limit else "failed"
    wanted = f"losses {limit:g} apart at most"
    return {"state": state, "found": found, "wanted": wanted, "ratio": ratio, **peer}


PARTS: dict[str, tuple[float, Callable[[Check, str], None]]] = {
    "golden": (30.0, golden),
    "steps": (20.0, in_worker),
    "amp": (20.0, in_worker),
    "ranks": (15.0, in_worker),
    "latency": (15.0, in_worker),
    "speed": (20.0, speed),
}
TITLES = {
    "golden": "Arrays and gradients of the originals, within the tests' tolerances; no TF32",
    "steps": "Relative distance of the loss from the CPU's before each of five updates; no TF32. "
    "Wanted: ten times what a change of the images by 1e-6 does on the CPU, or 1e-4",
    "amp": "Training in half precision: mean loss beside float32's",
    "ranks": "A world of one rank",
    "latency": "From an array of one picture to arrays of boxes and scores, batch norms folded",
    "speed": "Whole training steps, arrays in, report out: forward, loss, backward, optimizer, "
    "moving average. PyTorch's own settings, float32 convolutions on a GPU in TF32",
}


# ---- processes -----------------------------------------------------------------------------------


def _worker(
    check: Check, part: str, take: Callable[[Row], None], *, keep: float = 0.0
) -> list[Row]:
    """Run a part of ``cuda_parts.py``; ``take`` sees each of its rows as it comes.

    Args:
        keep: share of the time that is not the part's.

    Returns: the rows; one more if the process failed or was stopped.
    """
    seconds = max(check.left() * (1 - keep), 1.0)
    settings = {
        "device": check.options.device,
        "quick": check.options.quick,
        "seconds": max(seconds - 5.0, 1.0),
        "folder": str(check.folder),
    }
    log, rows = check.folder / f"{part}.log", []
    command = [sys.executable, str(HERE / "cuda_parts.py"), part, json.dumps(settings)]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=_environment()
        )
        guard = threading.Timer(seconds, process.kill)
        guard.start()
        for line in process.stdout:
            rows.append(json.loads(line))
            take(rows[-1])
        status = process.wait()
        late = not guard.is_alive()
        guard.cancel()
    if status:
        reason = "the time was over" if late else _last_line(log.read_text(errors="replace"))
        rows.append(_row("the rest", "stopped" if late else "failed", found=reason))
        take(rows[-1])
    return rows


def _environment() -> dict[str, str]:
    """The environment of a process on the PyTorch backend."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "MINDYOLO_EXT_BACKEND": "torch", "PYTHONPATH": path}


def _error_of(text: str) -> str:
    """The error in a worker's traceback; its log may follow."""
    found = re.search(r"^[\w.]+(Error|Exception)\b.*", text, re.MULTILINE)
    return found.group(0)[:300] if found else _last_line(text)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "ended without a word"


# ---- results -------------------------------------------------------------------------------------


@dataclass
class Section:
    """The section of a page, for ``write_sections``."""

    check: Check
    name: str = "cuda"

    def markdown(self) -> str:
        """Heading, the command, and a table per part."""
        options = self.check.options
        command = f"python benchmarks/cuda_check.py --device {options.device}"
        command += " --quick" if options.quick else ""
        versions = ", ".join(f"{key} {value}" for key, value in self.check.versions.items())
        lines = ["### cuda", "", f"`{command}`, {datetime.date.today()}; {versions}."]
        for part, rows in self.check.rows.items():
            lines += ["", f"{TITLES[part]}:", "", "| what | found | wanted | state |"]
            lines += ["|---|---|---|---|", *(_table_row(row) for row in rows)]
        return "\n".join(lines)


def _table_row(row: Row) -> str:
    cells = (row["what"], row.get("found", ""), row.get("wanted", ""), row["state"])
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


def _write(check: Check) -> None:
    """The files asked for."""
    if check.options.page:
        write_sections(check.options.page, [Section(check)])
    if check.options.json:
        found = {
            "device": check.options.device,
            "quick": check.options.quick,
            "date": str(datetime.date.today()),
            "versions": {"Python": platform.python_version(), **check.versions},
            "parts": {
                part: [{k: v for k, v in row.items() if k != "for_peer"} for row in rows]
                for part, rows in check.rows.items()
            },
        }
        check.options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

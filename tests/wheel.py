"""Test the wheel and the source archive without this clone: ``python tests/wheel.py DIST``.

Installs the newest wheel of a folder into an empty environment. Then, from an empty folder,
converts a checkpoint, predicts, reads a shipped recipe, runs the demo, evaluates its checkpoint,
exports and runs the exported file. The source archive is installed last, and predicts. Not part of
the test suite, because pip needs the network and minutes.
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


def missing_files(wheel: Path, source: Path) -> list[str]:
    """Recipes and deploy programs that are missing in the wheel or the source archive."""
    packed = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(source) as archive:
        sources = {name.partition("/")[2] for name in archive.getnames()}
    found = [*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "deploy").glob("*.py")]
    wanted = [path.relative_to(ROOT).as_posix() for path in found]
    lacking = [f"{wheel.name}: {name}" for name in wanted if f"mindyolo_ext/{name}" not in packed]
    return lacking + [f"{source.name}: {name}" for name in wanted if name not in sources]


def use(wheel: Path, source: Path, folder: Path) -> None:
    """Install into ``folder`` and run the commands there, without this clone."""
    venv.create(folder / "venv", with_pip=True)
    bin_ = folder / "venv" / "bin"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["PATH"] = f"{bin_}{os.pathsep}{environment['PATH']}"
    python, verb = [str(bin_ / "python")], [str(bin_ / "mindyolo-ext")]
    install = [*python, "-m", "pip", "install", "--quiet"]
    predict = [*verb, "predict", str(ROOT / PHOTOS), "--weight", "a.ckpt", "--save_dir"]
    for command in (
        [*install, str(wheel)],
        [*verb, "--version"],
        [*verb, "convert", str(ROOT / CHECKPOINT), "a.ckpt"],
        [*predict, "found"],
        [*verb, "recipe", "--config", "yolo-fastestv2"],
        [*verb, "demo", "--save_dir", "demo"],
        [*verb, "test", "--config", "demo/shapes.yaml", "--weight", "demo/converted.ckpt"],
        [*verb, "export", "--weight", "a.ckpt", "--format", "onnx"],
        [*python, "-m", "mindyolo_ext.deploy.onnx_runtime", "a.onnx", str(ROOT / PHOTOS)],
        [*install, "--no-deps", "--force-reinstall", str(source)],
        [*verb, "recipe", "--config", "yolox-s"],
        [*predict, "found-by-the-source-archive"],
    ):
        print("$", *command, flush=True)
        subprocess.run(command, cwd=folder, env=environment, check=True)


def main() -> None:
    """Check the contents of the newest archives, then use them."""
    dist = Path(sys.argv[1]).resolve()
    wheel, source = (max(dist.glob(p), key=os.path.getmtime) for p in ("*.whl", "*.tar.gz"))
    lacking = missing_files(wheel, source)
    if lacking:
        sys.exit("\n".join(["missing:", *lacking]))
    with tempfile.TemporaryDirectory() as folder:
        use(wheel, source, Path(folder))
    print("the wheel and the source archive are enough")


if __name__ == "__main__":
    main()

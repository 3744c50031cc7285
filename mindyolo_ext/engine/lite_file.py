"""Convert an ONNX file to MindSpore Lite's format with its program ``converter_lite``."""

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from mindyolo_ext.errors import ExportError, MissingPackageError, shown

PROGRAM = "converter_lite"


def write_ms(onnx_file: Path, target: Path) -> None:
    """Convert a network in float32.

    Args:
        onnx_file: as written by ``export``.
        target: ends in ``.ms``.

    Raises: MissingPackageError without the converter; ExportError if it fails.
    """
    program = find_converter()
    with TemporaryDirectory(prefix="mindyolo_ext-", ignore_cleanup_errors=True) as folder:
        shutil.copyfile(onnx_file, Path(folder) / "network.onnx")
        done = subprocess.run(
            [program, "--fmk=ONNX", "--modelFile=network.onnx", "--outputFile=network"],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
        )
        made = Path(folder) / "network.ms"
        if done.returncode or not made.is_file():
            lines = (done.stdout + done.stderr).splitlines() or ["no message"]
            raise ExportError(
                f"export: {PROGRAM} cannot convert the network ({shown(lines[-1], 200)})"
            )
        shutil.copyfile(made, target)


def find_converter() -> str:
    """Return the path of the converter. Raises: MissingPackageError."""
    found = shutil.which(PROGRAM)
    if found is None:
        raise MissingPackageError(
            f"export: --format ms needs {PROGRAM}, which is not on PATH: unpack the Linux package "
            "of MindSpore Lite, add its tools/converter/converter to PATH and its "
            "tools/converter/lib to LD_LIBRARY_PATH"
        )
    return found

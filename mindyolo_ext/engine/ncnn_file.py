"""Convert an ONNX file to ncnn's two files with pnnx."""

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from mindyolo_ext.errors import ExportError, MissingPackageError, UsageError, shown


def write_ncnn(onnx_file: Path, target: Path) -> None:
    """Convert a network of batch 1 in float32.

    Args:
        onnx_file: as written by ``export``.
        target: ends in ``.param``; the weights are written to the ``.bin`` beside it.

    Raises: MissingPackageError; ExportError if pnnx fails.
    """
    import onnx

    program = _pnnx()
    with TemporaryDirectory(prefix="mindyolo_ext-", ignore_cleanup_errors=True) as folder:
        model = onnx.load(str(onnx_file))
        shape = [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim]
        onnx.save(model, str(Path(folder) / "network.onnx"))
        done = subprocess.run(
            [program, "network.onnx", f"inputshape={shape}f32".replace(" ", ""), "fp16=0"],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
        )
        made = [Path(folder) / f"network.ncnn.{end}" for end in ("param", "bin")]
        if done.returncode or not all(path.is_file() for path in made):
            lines = (done.stderr + done.stdout).splitlines() or ["no message"]
            raise ExportError(f"export: pnnx cannot convert the network ({shown(lines[-1], 200)})")
        shutil.copyfile(made[0], target)
        shutil.copyfile(made[1], target.with_suffix(".bin"))


def _pnnx() -> str:
    """Path of the program, beside this Python or on PATH. Raises: MissingPackageError."""
    found = shutil.which("pnnx", path=str(Path(sys.executable).parent)) or shutil.which("pnnx")
    if found is None:
        raise MissingPackageError(
            "export: ncnn files need pnnx, which is not installed: `pip install "
            "'mindyolo_ext[ncnn]'`"
        )
    return found


def check_for_ncnn(*, batch_size: int, is_cut: bool, raw: bool) -> None:
    """Raises: UsageError for options that the ncnn runner does not support."""
    if is_cut:
        raise UsageError("export: ncnn runs whole models only; use onnx or openvino")
    if batch_size != 1 or raw:
        what = "--raw" if raw else f"--per_batch_size {batch_size}"
        raise UsageError(f"export: ncnn files take one image and return boxes; leave {what} out")

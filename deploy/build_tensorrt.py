"""Build a TensorRT engine from an exported ONNX file, on the machine that is to run it.

    python deploy/build_tensorrt.py MODEL.onnx [--half] [--batch 1 4 16] [--dry_run]

It starts TensorRT's own program ``trtexec`` and writes MODEL.engine, with the metadata of the ONNX
file as MODEL.json beside it, so that ``mindyolo-ext predict --weight MODEL.engine`` runs it.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

# from a checkout that is not installed
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mindyolo_ext import atomic
from mindyolo_ext.checkpoint.exported_files import onnx_facts
from mindyolo_ext.errors import UserError
from mindyolo_ext.runtimes.file import read_exported


def command_for(options: argparse.Namespace) -> list[str]:
    """The words of ``trtexec``. Raises: ValueError for a batch that the file does not take."""
    file = read_exported(options.model)
    if file.has_preprocess:
        raise ValueError(
            f"{options.model}: was exported with --with_preprocess, whose shapes TensorRT cannot "
            "plan; export it without that flag"
        )
    words = [
        options.trtexec,
        f"--onnx={options.model}",
        f"--saveEngine={options.model.with_suffix('.engine')}",
        f"--memPoolSize=workspace:{options.workspace}",
    ]
    if options.half:
        words.append("--fp16")
    if file.batch is None:
        least, usual, most = options.batch or (1, 1, 8)
        if not 1 <= least <= usual <= most:
            raise ValueError(f"--batch: wanted least <= usual <= most, got {least} {usual} {most}")
        side = "x".join(map(str, (3, *file.metadata.input_spec.size)))
        words += [
            f"--{name}Shapes=images:{count}x{side}"
            for name, count in (("min", least), ("opt", usual), ("max", most))
        ]
    elif options.batch:
        raise ValueError(
            f"{options.model}: takes batches of {file.batch} alone; export it with --dynamic_batch "
            "for --batch"
        )
    return words


def main() -> None:
    """Build the engine, or print the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="an .onnx file of `mindyolo-ext export`")
    parser.add_argument("--half", action="store_true", help="let TensorRT use float16")
    parser.add_argument(
        "--batch",
        type=int,
        nargs=3,
        metavar=("LEAST", "USUAL", "MOST"),
        help="of a file with --dynamic_batch (default: 1 1 8)",
    )
    parser.add_argument("--workspace", type=int, default=2048, help="MiB that building may take")
    parser.add_argument("--trtexec", default="trtexec", help="the program")
    parser.add_argument("--dry_run", action="store_true", help="print the command alone")
    options = parser.parse_args()
    try:
        words = command_for(options)
        if options.dry_run:
            print(shlex.join(words))
            return
        if shutil.which(options.trtexec) is None:
            parser.exit(
                1,
                f"{options.trtexec}: no such program; it comes with TensorRT (in NVIDIA's "
                "containers /usr/src/tensorrt/bin/trtexec): name it with --trtexec\n",
            )
        done = subprocess.run(words)
        if done.returncode:
            parser.exit(1, f"trtexec ended with status {done.returncode}; its last lines say why\n")
        atomic.write_json(
            options.model.with_suffix(".json"), onnx_facts(options.model).written, indent=1
        )
        print(f"{options.model.with_suffix('.engine')} and its metadata: ready")
    except (UserError, ValueError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()

"""Determine the kind of a file: a checkpoint of any program, or another file, which messages name.

Only the first bytes and the names inside an archive are examined.
"""

import io
import shlex
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from mindyolo_ext.checkpoint.limits import MAX_ZIP_DIRECTORY_BYTES, MAX_ZIP_ENTRIES
from mindyolo_ext.checkpoint.protobuf import BYTES, fields
from mindyolo_ext.checkpoint.tar import tar_parts
from mindyolo_ext.errors import (
    CheckpointError,
    MissingFileError,
    UnsafeCheckpointError,
    printable,
    shown,
)

WANTED = "wanted a PyTorch, safetensors or MindSpore checkpoint"
UNKNOWN = "which is not a known format"
FORMATS = {
    "torch-zip": "a PyTorch checkpoint",
    "torch-legacy": "a PyTorch checkpoint",
    "torch-legacy-tar": "a PyTorch checkpoint",
    "safetensors": "a safetensors file of another program",
    "mindspore": "a MindSpore checkpoint of another program",
}
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
)
EXPORTED = "an exported network; convert the checkpoint that it was exported from"
# first bytes of a file -> (what it is, what to do)
_BEGINNINGS: dict[bytes, tuple[str, str]] = {
    b"version https://git-lfs": ("a Git LFS pointer", "run git lfs pull"),
    b"\x1f\x8b": ("a gzip file", "unpack it first: gunzip -c {file} > {unpacked}"),
    b"BZh": ("a bzip2 file", "unpack it first: bunzip2 -c {file} > {unpacked}"),
    b"\xfd7zXZ\0": ("an xz file", "unpack it first: xz -dc {file} > {unpacked}"),
    b"\x28\xb5\x2f\xfd": ("a Zstandard file", "unpack it first: zstd -dc {file} > {unpacked}"),
    b"\x04\x22\x4d\x18": ("an LZ4 file", "unpack it first: lz4 -dc {file} > {unpacked}"),
    b"7z\xbc\xaf\x27\x1c": ("a 7-Zip archive", "unpack it first: 7z x {file}"),
    b"Rar!\x1a\x07": ("a RAR archive", "unpack it first: unrar x {file}"),
    b"\x89HDF\r\n\x1a\n": ("an HDF5 file", "no detector of this package was published as one"),
    b"\x93NUMPY": ("a NumPy array", "it has no names of parameters"),
    b"GGUF": ("a GGUF file", "it holds a language model"),
    b"\x89PNG": ("a PNG image", "name the checkpoint instead"),
    b"\xff\xd8\xff": ("a JPEG image", "name the checkpoint instead"),
    b"GIF8": ("a GIF image", "name the checkpoint instead"),
    b"BM": ("a BMP image", "name the checkpoint instead"),
    b"RIFF": ("a WebP image or a sound", "name the checkpoint instead"),
    b"%PDF": ("a PDF document", "name the checkpoint instead"),
    b"\x7fELF": ("a program or library", "name the checkpoint instead"),
    b"ptrt": ("a TensorRT engine", EXPORTED),
    b"ftrt": ("a TensorRT engine", EXPORTED),
    b"Gk0\x01": ("the weights of an ncnn network", EXPORTED),
    b"7767517\n": ("an ncnn network description", EXPORTED),
}
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".lz4")
_LATER = {  # at byte 4
    b"TFL3": "a TensorFlow Lite file",
    b"ET12": "an ExecuTorch file",
    b"MSL1": "a MindSpore Lite file",
    b"MSL2": "a MindSpore Lite file",
}
_ONNX_FIELDS = (b"\x12", b"\x1a", b"\x3a", b"\x42")  # producer, its version, graph, operators
_WEB_PAGE = (b"<!doctype", b"<html", b"<head", b"<body", b"<!--")
_TEXT_PICKLES = (b"(d", b"(l", b"ccopy_reg", b"c__builtin__", b"ccollections", b"ctorch")
_WEIGHTS = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".safetensors", ".onnx", ".tar", ".gz")


def sniff_format(path: Path) -> str:
    """Return the format of ``path``, one of ``FORMATS``.

    Raises: MissingFileError; CheckpointError that names what the file seems to be instead.
    """
    if not path.exists():
        raise MissingFileError(f"{path}: no such file, wanted a checkpoint")
    if not path.is_file():
        what = "is not a file but a folder" if path.is_dir() else "is not a file"
        raise CheckpointError(f"{path}: {what}, wanted a checkpoint")
    with path.open("rb") as stream:
        head = stream.read(512)
    if not head:
        raise CheckpointError(f"{path}: the file is empty, {WANTED}: download or copy it again")
    if _is_safetensors(head, path.stat().st_size):
        return "safetensors"
    if _is_tar(head):
        _refuse_other_tars(path)
        return "torch-legacy-tar"
    _refuse_known_kinds(path, head)
    if head.startswith(b"PK\x03\x04"):
        _refuse_other_archives(path)
        return "torch-zip"
    if head.startswith(b"PK"):
        raise CheckpointError(f"{path}: is an empty or split zip archive, {WANTED}")
    if head[:1] == b"\x80":
        return "torch-legacy"
    if head[:1] == b"\x0a" and not head.lstrip().startswith(b"{"):
        if is_mindir(head):
            raise CheckpointError(f"{path}: is a MindIR file, {WANTED}: {EXPORTED}")
        return "mindspore"
    raise CheckpointError(f"{path}: {_unknown(head)}, {WANTED}")


def convert_command(path: Path) -> str:
    """Return the command that converts ``path`` to one of our checkpoints, ready to be typed."""
    target = path.with_suffix(".ckpt")
    if target == path or target.exists():
        target = path.with_name(f"{path.stem}_converted.ckpt")
    return printable(f"mindyolo-ext convert {shlex.quote(str(path))} {shlex.quote(str(target))}")


def is_onnx(head: bytes) -> bool:
    """Whether a file begins like an ONNX model: a version, then a producer or a graph."""
    return head[:1] == b"\x08" and head[1:2] < b"\x20" and head[2:3] in _ONNX_FIELDS


def is_mindir(head: bytes) -> bool:
    """Whether a file that begins like this is a MindIR model: a version, then a producer."""
    try:
        found = fields(head, 0, len(head))
        number, kind, begin, end = next(found)
        version = head[begin:end]
        return (number, kind) == (1, BYTES) and version[:1].isdigit() and version.isascii()
    except (ValueError, StopIteration):
        return False


class Directory(io.BufferedReader):
    """A file whose zip directory is being read; rejects reads above the size of a directory.

    Args:
        path: the file.
    """

    def __init__(self, path: Path):
        super().__init__(io.FileIO(path))
        self.path = path
        self.most: int | None = MAX_ZIP_DIRECTORY_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        """Read like any file. Raises: CheckpointError if ``size`` is larger than allowed."""
        if self.most is not None and size is not None and size > self.most:
            raise CheckpointError(
                f"{self.path}: the directory of the zip archive has {size} bytes, the limit is "
                f"{self.most}"
            )
        return super().read(size)


def open_zip(path: Path) -> tuple[zipfile.ZipFile, Directory]:
    """Open the archive ``path``, and return it with the file to close afterwards. Its directory,
    which the library reads as a whole, is limited to ``MAX_ZIP_DIRECTORY_BYTES``.

    Raises: CheckpointError for a file that is not a zip archive, or is truncated.
    """
    stream = Directory(path)
    try:
        archive = zipfile.ZipFile(stream)
    except ZIP_ERRORS as error:
        stream.close()
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path}: a zip file that ends too early or is broken ({shown(str(error), 200)}), "
            "wanted a PyTorch checkpoint: download or copy it again"
        ) from error
    stream.most = None
    count = len(archive.infolist())
    if count > MAX_ZIP_ENTRIES:
        stream.close()
        raise CheckpointError(
            f"{path}: the archive has {count} entries, the limit is {MAX_ZIP_ENTRIES}"
        )
    return archive, stream


def _refuse_known_kinds(path: Path, head: bytes) -> None:
    """Raises: CheckpointError if the first bytes are those of something else."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    found: tuple[str, str] | None = None
    if start.startswith(_WEB_PAGE):
        found = "a web page", "the download failed"
    elif start.startswith(b"<?xml"):
        found = "an XML file", "the download failed, or it describes a network without weights"
    elif is_onnx(head):
        found = "an ONNX file", EXPORTED
    elif head[4:8] in _LATER:
        found = _LATER[head[4:8]], EXPORTED
    elif len(head) == 512 and not any(head):
        found = "a file that begins with zeros", "its download or copy is incomplete"
    else:
        found = next((what for begin, what in _BEGINNINGS.items() if head.startswith(begin)), None)
    if found is not None:
        names = {"file": shlex.quote(str(path)), "unpacked": shlex.quote(str(_unpacked(path)))}
        advice = found[1].format(**names)
        raise CheckpointError(f"{path}: is {found[0]}, {WANTED}: {advice}")


def _unpacked(path: Path) -> Path:
    """Return a name for the content of a packed file."""
    if path.suffix in _PACKED:
        return path.with_suffix("")
    return path.with_name(f"{path.stem}_unpacked{path.suffix}")


def _is_safetensors(head: bytes, size: int) -> bool:
    """Whether a file of ``size`` bytes begins with the length of a header and the header."""
    return len(head) > 9 and head[8:9] == b"{" and 2 <= struct.unpack("<Q", head[:8])[0] <= size - 8


def _is_tar(head: bytes) -> bool:
    """Whether a file begins with the header of a tar archive."""
    return len(head) == 512 and (
        head[257:262] == b"ustar"
        or head.startswith((b"storages\0", b"tensors\0", b"pickle\0", b"sys_info\0"))
    )


def _refuse_other_archives(path: Path) -> None:
    """Raises: CheckpointError for a zip archive that ``torch.save`` did not write."""
    archive, stream = open_zip(path)
    with stream, archive:
        names = [info.orig_filename for info in archive.infolist()]
    inside = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        raise UnsafeCheckpointError(
            f"{path}: is a TorchScript program, wanted weights saved with torch.save: run "
            "state_dict() on the loaded program and save that"
        )
    is_program = "serialized_exported_program.json" in {*names, *inside} or (
        "archive_format" in inside and any(name.startswith("models/") for name in inside)
    )
    if is_program:
        raise CheckpointError(
            f"{path}: is a program of torch.export (.pt2), wanted weights saved with torch.save: "
            "run state_dict() on the loaded program and save that"
        )
    if names and all(name.endswith(".npy") for name in names):
        raise CheckpointError(
            f"{path}: is a NumPy archive (.npz) of {len(names)} arrays, {WANTED}: save a "
            "state dict with torch.save or safetensors"
        )
    if "data.pkl" not in inside and {"version", "byteorder"} & inside:
        raise CheckpointError(
            f"{path}: torch.save did not finish this file (0 entries called <folder>/data.pkl); "
            "save it again"
        )
    if "data.pkl" not in inside:
        _refuse_wrapped(path, names, "zip archive", "unzip")


def _refuse_other_tars(path: Path) -> None:
    """Raises: CheckpointError for a tar file that ``torch.save`` did not write."""
    try:
        names = [part.name for part in tar_parts(path)]
    except (ValueError, OSError):
        return  # the reader reports it
    if not {"storages", "tensors", "pickle"} & set(names):
        _refuse_wrapped(path, names, "tar archive", "tar -xf")


def _refuse_wrapped(path: Path, names: Sequence[str], kind: str, command: str) -> None:
    """Raises: CheckpointError that names the files in an archive of other files."""
    weights = [name for name in names if name.lower().endswith(_WEIGHTS)]
    sample = ", ".join(shown(name, 60) for name in (weights or names)[:4])
    more = f" and {len(names) - 4} more" if len(names) > 4 and not weights else ""
    if weights:
        raise CheckpointError(
            f"{path}: is a {kind} around {sample}, {WANTED}: unpack it first: {command} "
            f"{shlex.quote(str(path))}"
        )
    raise CheckpointError(
        f"{path}: is a {kind} with 0 entries called <folder>/data.pkl, but {sample or 'nothing'}"
        f"{more}; {WANTED}"
    )


def _unknown(head: bytes) -> str:
    """Describe a file of unknown kind that begins with ``head``."""
    start = head.lstrip()
    if start.startswith(_TEXT_PICKLES):
        return "is a pickle of protocol 0, not written by torch.save"
    line = start.partition(b"\n")[0][:80]
    try:
        words = line.decode()
    except UnicodeDecodeError:
        words = ""
    if words and words.isprintable() and len(words) > 8:
        what = "JSON" if words[0] in "{[" else "text"
        return f"is {what} that begins with {shown(words, 60)!r} (is the download complete?)"
    return f"begins with {head[:8]!r}, {UNKNOWN}"

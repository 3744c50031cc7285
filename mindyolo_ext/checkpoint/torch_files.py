"""Read the three formats of ``torch.save``: zip (since 1.6), a stream of pickles, and tar (before
0.1.10).

Each class opens a file, checks what it declares before anything is allocated, reads the object
through ``pickle_machine``, and returns the numbers of one storage at a time.
"""

import io
import mmap
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from mindyolo_ext.checkpoint.ckpt_file import from_bfloat16
from mindyolo_ext.checkpoint.file_kinds import ZIP_ERRORS, open_zip
from mindyolo_ext.checkpoint.limits import (
    FREE_BYTES,
    MAX_AXES,
    MAX_GROWTH,
    MAX_PICKLE_BYTES,
    MAX_SIZE,
    MAX_ZIP_RATIO,
    REPEATED_ELEMENTS,
    Budget,
    check_name,
)
from mindyolo_ext.checkpoint.pickle_machine import item_size, read_pickle, storage_bytes
from mindyolo_ext.checkpoint.records import GlobalName, StorageRecord, TensorRecord
from mindyolo_ext.checkpoint.tar import TarPart, tar_parts
from mindyolo_ext.errors import CheckpointError, UnsafeCheckpointError, shown

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001


class TorchFile:
    """The common base of the formats: persistent ids, the table of storages, and strided reading.

    Args:
        path: the file.
        max_bytes: limit of the bytes that may be read from it.
    """

    source_format = ""

    def __init__(self, path: Path, max_bytes: int):
        self.path = path
        self.max_bytes = max_bytes
        self.budget = Budget(str(path))
        self.has_checksums = True
        self.order = "<"
        self.storages: dict[str, StorageRecord] = {}
        self._cache: tuple[str, bytes] | None = None

    def storage_record(self, pid: Any, *, length: tuple[int, ...]) -> Any:
        """Return the record of a persistent id ``("storage", type, key, location, count[,
        view])``.
        """
        if not isinstance(pid, tuple) or not pid or not isinstance(pid[0], str):
            raise UnsafeCheckpointError(
                f"{self.path}: refused, a persistent id of type {type(pid).__name__}, wanted a "
                "tuple that names a storage"
            )
        if pid[0] == "module" and len(pid) == 4 and isinstance(pid[1], GlobalName) and 6 in length:
            return pid[1]  # a class with its source text, which is ignored
        if pid[0] != "storage" or len(pid) not in length:
            raise UnsafeCheckpointError(
                f"{self.path}: refused, a persistent id {shown(pid[0], 40)!r} with {len(pid)} "
                "parts, wanted 'storage' with " + " or ".join(map(str, length))
            )
        kind, key, count = pid[1], pid[2], pid[4]
        if not isinstance(kind, GlobalName) or kind.kind != "storage":
            raise CheckpointError(
                f"{self.path}: a storage has the type "
                f"{kind.qualified if isinstance(kind, GlobalName) else type(kind).__name__!r}, "
                "wanted one of numbers (float, half, bfloat16, double, integers, bool)"
            )
        if not isinstance(key, str) or not isinstance(count, int) or not 0 <= count <= MAX_SIZE:
            raise CheckpointError(
                f"{self.path}: a storage has a key of type {type(key).__name__} and a count of "
                f"type {type(count).__name__}, wanted text and a whole number >= 0 of 64 bits"
            )
        record = StorageRecord(
            check_name(key, "a storage", where=str(self.path)), kind.value, count
        )
        if key in self.storages:
            old = self.storages[key]
            if (old.dtype, old.count) != (record.dtype, record.count):
                raise CheckpointError(
                    f"{self.path}: storage {key!r} is declared as {old.count} x {old.dtype} and as "
                    f"{record.count} x {record.dtype}"
                )
            return old
        if storage_bytes(record) > self.max_bytes:
            raise CheckpointError(
                f"{self.path}: storage {key!r} declares {storage_bytes(record)} bytes, the limit "
                f"is {self.max_bytes}"
            )
        self.check_storage(record)
        self.storages[key] = record
        return record

    def check_storage(self, record: StorageRecord) -> None:
        """Compare a declared storage with the content of the file, if that is already known."""

    def __enter__(self) -> "TorchFile":
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""

    def read(self) -> Any:
        """Read the saved object."""
        raise NotImplementedError

    def storage_content(self, key: str) -> bytes:
        """Return the bytes of storage ``key``."""
        raise NotImplementedError

    def tensor(self, record: TensorRecord) -> np.ndarray:
        """Return the numbers of ``record`` as a new array; half and bfloat16 become float32."""
        key = record.storage.key
        if self._cache is None or self._cache[0] != key:
            self._cache = (key, self.storage_content(key))
        size = item_size(record.storage.dtype)
        start = record.storage.offset * size
        content = memoryview(self._cache[1])[start : start + record.storage.count * size]
        if len(content) != storage_bytes(record.storage):
            raise CheckpointError(
                f"{self.path}: storage {key!r} holds {len(content)} bytes, wanted "
                f"{storage_bytes(record.storage)}"
            )
        step = item_size(record.dtype)
        code = "u2" if record.dtype == "bfloat16" else np.dtype(record.dtype).str[1:]
        flat = np.frombuffer(content[: len(content) // step * step], np.dtype(self.order + code))
        if record.count == 0:
            view = self._empty(record, flat.dtype)
        else:
            steps = zip(record.shape, record.stride, strict=True)
            view = np.lib.stride_tricks.as_strided(
                flat[record.offset :],
                record.shape,
                # along an axis of length one, any stride is valid
                [0 if size == 1 else stride * step for size, stride in steps],
                writeable=False,
            )
        return _native(view, record.dtype)

    def _empty(self, record: TensorRecord, dtype: np.dtype) -> np.ndarray:
        """Return an array without elements. Raises: CheckpointError for more axes than NumPy
        supports.
        """
        try:
            return np.zeros(record.shape, dtype)
        except ValueError as error:
            raise CheckpointError(
                f"{self.path}: an empty tensor of shape {record.shape} ({error})"
            ) from error


def _native(view: np.ndarray, dtype: str) -> np.ndarray:
    """Return a contiguous copy in native byte order, with half precision widened to float32."""
    if dtype == "bfloat16":
        return from_bfloat16(view)
    if dtype == "bool":
        return view.view(np.uint8) != 0 if view.ndim else np.array(view.astype(np.uint8) != 0)
    return np.array(view, dtype=np.float32 if dtype == "float16" else dtype, order="C")


class TorchZip(TorchFile):
    """The zip format: ``<root>/data.pkl`` and ``<root>/data/<key>``.

    Raises: CheckpointError for a broken, encrypted or inconsistent archive.
    """

    source_format = "torch-zip"

    def __init__(self, path: Path, max_bytes: int):
        super().__init__(path, max_bytes)
        self.archive, self.stream = open_zip(path)
        try:
            self.entries = self._checked_entries()
            self.root = self._find_root()
            self.order = self._byte_order()
        except CheckpointError:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self.archive.close()
        self.stream.close()

    def _checked_entries(self) -> dict[str, zipfile.ZipInfo]:
        """Return the entries by name, after checks of their names and declared sizes."""
        entries: dict[str, zipfile.ZipInfo] = {}
        infos = self.archive.infolist()
        # PyTorch writes none after torch.serialization.set_crc32_options(False)
        self.has_checksums = any(info.CRC for info in infos)
        for info in infos:
            name = self._checked_name(info)
            if name in entries:
                raise UnsafeCheckpointError(
                    f"{self.path}: refused, the archive has two entries called {name[:120]!r}"
                )
            self._check_declared(info, name)
            if not self.has_checksums:
                del info.CRC  # so the library does not compare it
            entries[name] = info
        size = self.path.stat().st_size
        packed, unpacked = (
            sum(getter(i) for i in infos)
            for getter in (lambda i: i.compress_size, lambda i: i.file_size)
        )
        most = min(self.max_bytes, MAX_GROWTH * size + FREE_BYTES)
        if packed > size or unpacked > most:
            raise UnsafeCheckpointError(
                f"{self.path}: refused, the archive declares {packed} bytes packed, {unpacked} "
                f"unpacked; the file has {size}, the limit is {most}"
            )
        return entries

    def _checked_name(self, info: zipfile.ZipInfo) -> str:
        """Return the name of an entry. Raises: UnsafeCheckpointError if it points outside the
        archive.
        """
        name = check_name(info.orig_filename, "an entry", where=str(self.path))
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or ".." in parts or "\0" in name or ":" in parts[0]:
            raise UnsafeCheckpointError(
                f"{self.path}: refused, the archive has an entry {name[:120]!r}, wanted "
                "names inside one folder"
            )
        return name

    def _check_declared(self, info: zipfile.ZipInfo, name: str) -> None:
        """Raises: CheckpointError for an entry that is encrypted, compressed in an unknown way, or
        larger than its data.
        """
        if info.flag_bits & 0x1:
            raise CheckpointError(
                f"{self.path}: entry {name!r} is encrypted, wanted a plain checkpoint"
            )
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise CheckpointError(
                f"{self.path}: entry {name!r} uses compression {info.compress_type}, wanted none"
            )
        stored = info.compress_type == zipfile.ZIP_STORED
        limit = info.compress_size if stored else max(info.compress_size * MAX_ZIP_RATIO, 1 << 20)
        if info.file_size > limit or (stored and info.file_size != info.compress_size):
            raise UnsafeCheckpointError(
                f"{self.path}: refused, entry {name!r} declares {info.file_size} bytes in "
                f"{info.compress_size} of the file"
            )

    def _find_root(self) -> str:
        """Return the folder that contains ``data.pkl``."""
        roots = [
            name[: -len("data.pkl")]
            for name in self.entries
            if name.endswith("/data.pkl") and name.count("/") == 1
        ]
        if len(roots) != 1:
            raise CheckpointError(
                f"{self.path}: a zip archive with {len(roots)} entries called <folder>/data.pkl, "
                "wanted exactly one as torch.save writes it"
            )
        return roots[0]

    def _byte_order(self) -> str:
        """Return ``<`` or ``>``; files without this record are little-endian."""
        name = self.root + "byteorder"
        text = self._read(name, 16).decode("latin-1").strip() if name in self.entries else "little"
        if text not in ("little", "big"):
            raise CheckpointError(
                f"{self.path}: byteorder is {shown(text)!r}, wanted 'little' or 'big'"
            )
        return "<" if text == "little" else ">"

    def _read(self, name: str, limit: int) -> bytes:
        """Read the content of an entry, at most ``limit`` bytes."""
        info = self.entries[name]
        if info.file_size > limit:
            raise CheckpointError(
                f"{self.path}: entry {name!r} declares {info.file_size} bytes, the limit is {limit}"
            )
        try:
            with self.archive.open(info) as stream:
                content = stream.read(info.file_size)
                if stream.read(1):
                    raise CheckpointError(
                        f"{self.path}: entry {name!r} is longer than its declared size"
                    )
        except ZIP_ERRORS as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{self.path}: entry {name!r} is damaged ({error})") from error
        if len(content) != info.file_size:
            raise CheckpointError(
                f"{self.path}: entry {name!r} holds {len(content)} bytes, it declares "
                f"{info.file_size}"
            )
        return content

    def read(self) -> Any:
        """Read the saved object."""
        content = self._read(self.root + "data.pkl", MAX_PICKLE_BYTES)
        return read_pickle(
            io.BytesIO(content),
            where=f"{self.path}:data.pkl",
            budget=self.budget,
            storage=lambda pid: self.storage_record(pid, length=(5,)),
        )

    def check_storage(self, record: StorageRecord) -> None:
        name = f"{self.root}data/{record.key}"
        if name not in self.entries:
            raise CheckpointError(
                f"{self.path}: storage {record.key!r} is declared but the entry {name!r} is missing"
            )
        if self.entries[name].file_size != storage_bytes(record):
            raise CheckpointError(
                f"{self.path}: storage {record.key!r} declares {record.count} x "
                f"{record.dtype or 'bytes'} = {storage_bytes(record)} bytes, its entry holds "
                f"{self.entries[name].file_size}"
            )

    def storage_content(self, key: str) -> bytes:
        return self._read(f"{self.root}data/{key}", self.max_bytes)


class TorchStream(TorchFile):
    """The format before 1.6: magic number, protocol, machine facts, object, keys (one pickle
    each), raw storages.
    """

    source_format = "torch-legacy"

    def __init__(self, path: Path, max_bytes: int):
        super().__init__(path, max_bytes)
        size = path.stat().st_size
        if size > max_bytes:
            raise CheckpointError(f"{path}: the file has {size} bytes, the limit is {max_bytes}")
        self.file = path.open("rb")
        self.map = mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ)
        self.positions: dict[str, int] = {}
        self.views: dict[str, tuple[str, int, int]] = {}

    def __exit__(self, *_: object) -> None:
        self.map.close()
        self.file.close()

    def read(self) -> Any:
        """Read the saved object."""
        where, budget = str(self.path), self.budget
        stream = io.BytesIO(self.map[:MAX_PICKLE_BYTES])  # the numbers follow after all pickles
        magic = read_pickle(stream, where=where, budget=budget)
        if magic != LEGACY_MAGIC or isinstance(magic, bool):
            raise CheckpointError(
                f"{self.path}: a pickle that does not begin with PyTorch's magic number, wanted a "
                "file written by torch.save (pickle.dump and joblib write others): load it where "
                "it came from and save its state dict with torch.save"
            )
        protocol = read_pickle(stream, where=where, budget=budget)
        if protocol != LEGACY_PROTOCOL:
            raise CheckpointError(
                f"{self.path}: protocol version "
                f"{protocol if isinstance(protocol, int) else type(protocol).__name__}, wanted "
                f"{LEGACY_PROTOCOL}"
            )
        # facts about the machine that wrote it; storages are little-endian
        read_pickle(stream, where=where, budget=budget)
        result = read_pickle(stream, where=where, budget=budget, storage=self._storage)
        keys = read_pickle(stream, where=where, budget=budget)
        if not isinstance(keys, list) or any(not isinstance(key, str) for key in keys):
            raise CheckpointError(
                f"{self.path}: the list of storages is a {type(keys).__name__}, wanted a list of "
                "text"
            )
        self._locate(keys, stream.tell())
        return result

    def _storage(self, pid: Any) -> Any:
        """Return the record of a persistent id; a storage that is a view of another is read through
        it.
        """
        record = self.storage_record(pid, length=(5, 6))
        if not isinstance(record, StorageRecord) or len(pid) == 5 or pid[5] is None:
            return record
        view = pid[5]
        if (
            not isinstance(view, tuple)
            or len(view) != 3
            or not isinstance(view[0], str)
            or any(not isinstance(v, int) or v < 0 for v in view[1:])
            or view[1] + view[2] > record.count
        ):
            raise CheckpointError(
                f"{self.path}: storage {record.key!r} has a broken view, wanted (key, offset, "
                f"count) inside its {record.count} elements"
            )
        return StorageRecord(record.key, record.dtype, view[2], offset=view[1])

    def _locate(self, keys: list[str], position: int) -> None:
        """Record where each storage's numbers begin: an int64 count, then the numbers.

        Args:
            position: byte position of the first one.
        """
        end = len(self.map)
        for key in keys:
            record = self.storages.get(key)
            if record is None:
                raise CheckpointError(
                    f"{self.path}: storage {shown(key)!r} is listed but no tensor declares it"
                )
            if position + 8 > end:
                raise CheckpointError(
                    f"{self.path}: the file ends before storage {key!r}: download or copy it again"
                )
            (count,) = struct.unpack_from("<q", self.map, position)
            if count != record.count:
                raise CheckpointError(
                    f"{self.path}: storage {key!r} holds {count} elements, declared {record.count}"
                )
            self.positions[key] = position + 8
            position += 8 + storage_bytes(record)
            if position > end:
                raise CheckpointError(
                    f"{self.path}: the file ends inside storage {key!r} (byte {end}, wanted "
                    f"{position}): download or copy it again"
                )
        missing = sorted(set(self.storages) - set(keys))
        if missing:
            raise CheckpointError(
                f"{self.path}: storages {missing[:3]} are declared but missing from the file"
            )

    def storage_content(self, key: str) -> bytes:
        start = self.positions[key]
        return self.map[start : start + storage_bytes(self.storages[key])]


class TorchTar(TorchFile):
    """The format before 0.1.10: a tar with ``storages``, ``tensors`` and ``pickle``."""

    source_format = "torch-legacy-tar"

    def __init__(self, path: Path, max_bytes: int):
        super().__init__(path, max_bytes)
        try:
            parts = tar_parts(path)
        except (ValueError, OSError) as error:
            raise CheckpointError(
                f"{path}: a tar file that is broken ({error}), wanted a PyTorch checkpoint"
            ) from error
        self.parts = {name: self._part(parts, name) for name in ("storages", "tensors", "pickle")}
        self.contents: dict[str, bytes] = {}
        self.objects: dict[int, StorageRecord | TensorRecord] = {}

    def __exit__(self, *_: object) -> None:
        self.contents.clear()

    def _part(self, parts: list[TarPart], name: str) -> bytes:
        """Read the content of one part."""
        found = [part for part in parts if part.name == name]
        if len(found) != 1 or not found[0].is_file:
            raise CheckpointError(
                f"{self.path}: a tar file with {len(found)} parts called {name!r}, wanted one as "
                "torch.save wrote it before 0.1.10"
            )
        if found[0].size > self.max_bytes:
            raise CheckpointError(
                f"{self.path}: part {name!r} declares {found[0].size} bytes, more than allowed"
            )
        with self.path.open("rb") as stream:
            stream.seek(found[0].offset)
            return stream.read(found[0].size)

    def read(self) -> Any:
        """Read the saved object."""
        self._read_storages()
        self._read_tensors()
        return read_pickle(
            io.BytesIO(self.parts["pickle"][:MAX_PICKLE_BYTES]),
            where=f"{self.path}:pickle",
            budget=self.budget,
            storage=self._find,
        )

    def _find(self, pid: Any) -> Any:
        """Return the object of a persistent id: a number, or a class with its source text."""
        if (
            isinstance(pid, tuple)
            and len(pid) == 4
            and pid[0] == "module"
            and isinstance(pid[1], GlobalName)
        ):
            return pid[1]
        if isinstance(pid, tuple) and pid and isinstance(pid[0], GlobalName):
            return pid[0]
        if isinstance(pid, str) and pid.isdecimal() and len(pid) < 20:
            pid = int(pid)
        if not isinstance(pid, int) or pid not in self.objects:
            raise CheckpointError(
                f"{self.path}: a persistent id {pid if isinstance(pid, int) else ''!r} is unknown"
            )
        return self.objects[pid]

    def _read_storages(self) -> None:
        where, stream = f"{self.path}:storages", io.BytesIO(self.parts["storages"])
        for _ in range(self._count(self._pickle(stream, where), where)):
            key, _, kind = self._triple(self._pickle(stream, where), where)
            if not isinstance(kind, GlobalName) or kind.kind != "storage" or not kind.value:
                raise CheckpointError(f"{where}: storage {key} has no type of numbers")
            (count,) = struct.unpack("<q", self._bytes(stream, 8, where))
            record = StorageRecord(str(key), kind.value, self._count(count, where))
            self.contents[record.key] = self._bytes(stream, storage_bytes(record), where)
            self.objects[key] = record
        views = self._pickle(stream, where) or []
        if not isinstance(views, list):
            raise CheckpointError(f"{where}: the views of storages are no list")
        for view in views:
            if (
                not isinstance(view, tuple)
                or len(view) != 4
                or any(not isinstance(v, int) for v in view)
            ):
                raise CheckpointError(
                    f"{where}: a broken view of a storage, wanted four whole numbers"
                )
            target, root, offset, count = view
            base = self.objects.get(root)
            if (
                not isinstance(base, StorageRecord)
                or min(offset, count) < 0
                or offset + count > base.count
            ):
                raise CheckpointError(f"{where}: a view reaches outside its storage")
            self.objects[target] = StorageRecord(base.key, base.dtype, count, base.offset + offset)

    def _read_tensors(self) -> None:
        where, stream = f"{self.path}:tensors", io.BytesIO(self.parts["tensors"])
        for _ in range(self._count(self._pickle(stream, where), where)):
            key, storage_key, _ = self._triple(self._pickle(stream, where), where)
            storage = self.objects.get(storage_key)
            (dimensions,) = struct.unpack("<i4x", self._bytes(stream, 8, where))
            if (
                not isinstance(storage, StorageRecord)
                or storage.dtype is None
                or not 0 <= dimensions <= MAX_AXES
            ):
                raise CheckpointError(f"{where}: tensor {key} has no storage or {dimensions} axes")
            numbers = struct.unpack(
                f"<{2 * dimensions + 1}q", self._bytes(stream, 16 * dimensions + 8, where)
            )
            shape, stride, offset = numbers[:dimensions], numbers[dimensions:-1], numbers[-1]
            last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
            record = TensorRecord(storage, storage.dtype, offset, shape, stride)
            if (
                min(numbers, default=0) < 0
                or (record.count and last >= storage.count)
                or record.count > max(storage.count, REPEATED_ELEMENTS)
            ):
                raise CheckpointError(
                    f"{where}: tensor {key} of shape {shape}, stride {stride}, offset {offset} "
                    f"reaches outside its storage of {storage.count} elements"
                )
            self.objects[key] = record

    def _pickle(self, stream: io.BytesIO, where: str) -> Any:
        """Read the next object of a part: a number, a short tuple or list."""
        return read_pickle(stream, where=where, budget=self.budget)

    def _count(self, value: Any, where: str) -> int:
        if not isinstance(value, int) or not 0 <= value <= self.max_bytes:
            raise CheckpointError(
                f"{where}: a count is {value if isinstance(value, int) else 'no number'}"
            )
        return value

    def _triple(self, value: Any, where: str) -> tuple:
        if not isinstance(value, tuple) or len(value) != 3 or not isinstance(value[0], int):
            raise CheckpointError(
                f"{where}: a broken entry, wanted (key, location or storage, type)"
            )
        return value

    def _bytes(self, stream: io.BytesIO, count: int, where: str) -> bytes:
        content = stream.read(count)
        if len(content) != count:
            raise CheckpointError(
                f"{where}: ends too early, {len(content)} bytes where {count} were wanted"
            )
        return content

    def storage_content(self, key: str) -> bytes:
        return self.contents[key]

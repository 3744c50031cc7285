"""Cache of decoded images, in memory or in a file that all processes of a machine share.

Every image has a fixed place and is stored when it is first decoded. It is valid once the checksum
of its pixels is in the table, so a process that is killed at any moment leaves no broken image. In
each run the content of every image file is checked once against the file that was decoded.

A cache in memory has no name in any file system and is freed with the last process that uses it;
other ranks find it through ``/proc``. Its size is not limited by ``/dev/shm``.
"""

import contextlib
import hashlib
import logging
import mmap
import os
import re
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mindyolo_ext.atomic import write_text
from mindyolo_ext.data.sharing import alone, cache_folder
from mindyolo_ext.errors import UsageError, WriteError

logger = logging.getLogger(__name__)
KINDS = ("none", "ram", "disk")
_MAGIC = b"mindyolo_ext images 1\n"
_HEADER = 64  # bytes: magic and key
_ALIGNMENT = 64
_RECORD = np.dtype([("pixels", "<u8"), ("file", "<u8")])  # checksums: of pixels + 1, of the file
_IN_PROC = re.compile(r"/proc/\d+/fd/\d+")


class ImageCache:
    """Images by index, created by ``open_cache``. Sent to other processes by file name.

    Args:
        path: file of the images.
        key: key of the data set, 32 bytes, that the file must contain.
        sizes: (n, 2) height and width of each image, 0 for one that is not cached.
        checked: file with a byte per image: 1 once this run has checked its image file.

    Raises: OSError if a file cannot be used.
    """

    def __init__(self, path: str, key: bytes, sizes: np.ndarray, checked: str):
        self.path, self._arguments = path, (path, key, sizes, checked)
        self._starts, length = _layout(sizes)
        self._sizes, self._is_full = sizes, False
        self._file = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        weakref.finalize(self, os.close, self._file)
        if os.fstat(self._file).st_size != length or _key_in(self._file) != key:
            raise OSError("images of another data set")
        memory = mmap.mmap(self._file, length, access=mmap.ACCESS_READ)
        self._memory = np.frombuffer(memory, np.uint8)
        self._table = np.frombuffer(memory, _RECORD, len(sizes), _HEADER)
        descriptor = os.open(checked, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        with contextlib.closing(os.fdopen(descriptor, "r+b")) as file:
            self._checked = np.frombuffer(mmap.mmap(file.fileno(), max(1, len(sizes))), np.uint8)

    def __reduce__(self) -> tuple[Any, ...]:
        return _attached, self._arguments

    def get(self, index: int, path: str) -> np.ndarray | None:
        """Return the pixels (h, w, 3) of image ``index``, read-only in shared memory; None if it
        has to be decoded.

        Args:
            path: path of the image file.
        """
        entry = self._table[index]
        if not entry["pixels"]:
            return None
        height, width = self._sizes[index].tolist()
        start = self._starts[index]
        pixels = self._memory[start : start + height * width * 3]
        if not self._checked[index]:
            if entry["file"] != _digest(path) or entry["pixels"] != _sum(pixels):
                return None
            self._checked[index] = 1
        return pixels.reshape(height, width, 3)

    def put(self, index: int, path: str, image: np.ndarray) -> None:
        """Store an image decoded from the file ``path``. If the disk is full, warn once, and decode
        all other images whenever they are needed.
        """
        if self._is_full or image.shape[:2] != tuple(self._sizes[index]):
            return
        try:
            record = np.array((_sum(image), _digest(path)), _RECORD)
            place = _HEADER + index * _RECORD.itemsize
            _write(self._file, bytes(_RECORD.itemsize), place)  # invalid while pixels are written
            _write(self._file, image.data.cast("B"), int(self._starts[index]))
            _write(self._file, record.tobytes(), place)
            self._checked[index] = 1
        except OSError as error:
            self._is_full = True
            logger.warning(
                "%s: cannot cache more images (%s): the others are decoded whenever they are "
                "needed; free disk space and start again, or --set data.cache=none",
                self.path,
                error.strerror or error,
            )


def open_cache(
    kind: str | bool, name: str, paths: Sequence[str], sizes: np.ndarray
) -> ImageCache | None:
    """Open the cache of a data set, possibly one that another process started; None for ``none``.

    Args:
        kind: one of ``KINDS``; True is ``ram``, False ``none``.
        name: name of the data set.
        paths: image files.
        sizes: (n, 2) height and width of each, 0 where unknown.

    Raises: UsageError for another kind, or if the images do not fit.
    """
    if isinstance(kind, bool):
        kind = "ram" if kind else "none"
    if kind not in KINDS:
        raise UsageError(f"{name}: cache must be one of {', '.join(KINDS)}, got {kind!r}")
    if kind == "none" or not len(paths):
        return None
    sizes = np.ascontiguousarray(sizes, np.int32)
    whole = [os.path.abspath(path) for path in paths]
    digest = hashlib.sha256(sizes.tobytes())
    digest.update("\0".join(whole).encode("utf-8", "surrogateescape"))
    maker = _Maker(name, digest.digest(), sizes)
    return maker.in_memory() if kind == "ram" else maker.on_disk(whole)


class _Maker:
    """Find or create the cache of one data set."""

    def __init__(self, name: str, key: bytes, sizes: np.ndarray):
        self._name, self._key, self._sizes = name, key, sizes
        self._length = _layout(sizes)[1]

    def in_memory(self) -> ImageCache:
        """Return the cache that another process of this machine has in memory, else a new one."""
        folder = cache_folder("images")
        if folder is None:
            return self._own_memory()
        note = folder / f"{_machine()}-{self._key.hex()[:16]}.ram"
        with alone(note, self._name) as is_ours:
            if not is_ours:
                return self._own_memory()
            with contextlib.suppress(OSError, UnicodeDecodeError):
                path = note.read_text("utf-8")
                if _IN_PROC.fullmatch(path):
                    found = self._opened(path)
                    logger.info("%s: shares the image cache of another process", self._name)
                    return found
            found = self._own_memory()
            with contextlib.suppress(WriteError):
                write_text(note, found.path)
            return found

    def _own_memory(self) -> ImageCache:
        """Create a cache in memory. Raises: UsageError if it does not fit."""
        self._announce("ram", _free_memory(), "use data.cache=disk, or none")
        descriptor, path = _memory(self._length)
        try:
            _begin(path, self._key, self._length)
            found = self._opened(path)
        except OSError:
            _end_memory(descriptor, path)
            raise
        weakref.finalize(found, _end_memory, descriptor, path)
        return found

    def on_disk(self, paths: Sequence[str]) -> ImageCache | None:
        """Open or create a file next to the images, or else in the user's cache folder; None if
        both are read-only. Raises: UsageError if it does not fit.
        """
        beside = Path(os.path.commonpath([os.path.dirname(path) for path in paths]))
        name = hashlib.sha256(f"{beside}\0{self._name}".encode("utf-8", "surrogateescape"))
        file = f"{name.hexdigest()[:16]}.images"
        places = [beside / f".{file}"]
        folder = cache_folder("images")
        if folder is not None:
            places.append(folder / file)
        for place in places:
            with alone(place, self._name) as is_ours:
                if not is_ours:
                    continue
                with contextlib.suppress(OSError):
                    found = self._opened(str(place))
                    logger.info("%s: data.cache=disk: continues %s", self._name, place)
                    return found
                free = shutil.disk_usage(place.parent).free
                with contextlib.suppress(OSError):
                    free += place.stat().st_blocks * 512  # size of the file to be replaced
                self._announce("disk", free, "use data.cache=none, or free disk space", place)
                try:
                    _begin(str(place), self._key, self._length)
                    return self._opened(str(place))
                except OSError as error:
                    logger.warning("%s: cannot cache images (%s)", place, error)
        logger.warning(
            "%s: data.cache=disk: no folder can be written, neither %s nor the user's cache "
            "(XDG_CACHE_HOME); images are decoded whenever they are needed",
            self._name,
            beside,
        )
        return None

    def _announce(self, kind: str, free: int | None, advice: str, place: object = "") -> None:
        """Log the size. Raises: UsageError if there is not enough space."""
        height, width = self._sizes.max(0).tolist()
        where = f" in {place}" if place else ""
        text = (
            f"{self._name}: data.cache={kind}: {self._length / 1e9:.1f} GB for "
            f"{len(self._sizes):,} decoded images of at most {max(height, width)} pixels{where}"
        )
        if free is not None:
            text += f"; {free / 1e9:.1f} GB are free"
            if self._length > free:
                raise UsageError(f"{text}: {advice} (--set data.cache=...)")
        logger.info("%s", text)

    def _opened(self, path: str) -> ImageCache:
        """Open the cache in ``path``, with all images unchecked."""
        descriptor, checked = _memory(len(self._sizes))
        try:
            found = ImageCache(path, self._key, self._sizes, checked)
        except OSError:
            _end_memory(descriptor, checked)
            raise
        weakref.finalize(found, _end_memory, descriptor, checked)
        return found


def _layout(sizes: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the first byte (n,) of each image, and the total size in bytes."""
    lengths = sizes.astype(np.int64).prod(1) * 3
    lengths += -lengths % _ALIGNMENT
    first = _HEADER + len(sizes) * _RECORD.itemsize
    first += -first % _ALIGNMENT
    ends = first + np.cumsum(lengths)
    return ends - lengths, int(ends[-1])


def _begin(path: str, key: bytes, length: int) -> None:
    """Write an empty cache, replacing another one. Raises: OSError."""
    header = (_MAGIC + key).ljust(_HEADER, b"\0")
    unfinished = path if _IN_PROC.fullmatch(path) else f"{path}.{os.getpid()}.tmp"
    try:
        with open(unfinished, "r+b" if unfinished == path else "wb") as file:
            file.truncate(length)
            file.write(header)
        if unfinished != path:
            os.replace(unfinished, path)
    except OSError:
        if unfinished != path:
            with contextlib.suppress(OSError):
                os.unlink(unfinished)
        raise


def _key_in(file: int) -> bytes:
    """Read the key of an open file, empty if it is not an image cache."""
    header = os.pread(file, _HEADER, 0)
    return header[len(_MAGIC) : len(_MAGIC) + 32] if header.startswith(_MAGIC) else b""


def _write(file: int, content: bytes | memoryview, start: int) -> None:
    """Write all of ``content``. Raises: OSError."""
    left = memoryview(content)
    while left:
        done = os.pwrite(file, left, start)
        left, start = left[done:], start + done


def _sum(pixels: np.ndarray) -> int:
    """Compute a checksum of ``pixels`` above 0."""
    return zlib.crc32(pixels.data) + 1


def _digest(path: str) -> int:
    """Compute a 64-bit checksum of a file. Raises: OSError."""
    with open(path, "rb") as file:
        content = file.read()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _memory(length: int) -> tuple[int, str]:
    """Create memory, and the name under which other processes of this machine find it while this
    process has it open. Systems other than Linux use a temporary file.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("mindyolo_ext images")
        path = f"/proc/{os.getpid()}/fd/{descriptor}"
    else:
        descriptor, path = tempfile.mkstemp(prefix="mindyolo_ext-", suffix=".images")
    os.ftruncate(descriptor, max(1, length))
    return descriptor, path


def _end_memory(descriptor: int, path: str) -> None:
    """Release the memory of ``_memory`` once no other process uses it."""
    os.close(descriptor)
    if not _IN_PROC.fullmatch(path):
        with contextlib.suppress(OSError):
            os.unlink(path)


def _machine() -> str:
    """Return text that identifies machines and containers that share the user's cache folder."""
    parts = []
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        with contextlib.suppress(OSError):
            parts.append(read())
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


def _free_memory() -> int | None:
    """Return the bytes available without swapping, None if unknown."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    group = Path("/sys/fs/cgroup")
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # "max" means no limit
            found.append(int((group / limit).read_text()) - int((group / used).read_text()))
    return max(0, min(found)) if found else None


def _attached(path: str, key: bytes, sizes: np.ndarray, checked: str) -> ImageCache | None:
    """Open the cache in another process; None, with a warning, if that fails."""
    try:
        return ImageCache(path, key, sizes, checked)
    except OSError as error:
        logger.warning("%s: images are decoded in this process (%s)", path, error)
        return None

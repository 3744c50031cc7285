"""Memory for the images of batches, shared with worker processes where the system allows it.

The memory has no name in any file system: it ends with the last process that uses it, however that
process ends, and the size of ``/dev/shm`` does not matter. Worker processes open it through
``/proc``.
"""

import itertools
import logging
import mmap
import os
import weakref
from collections import deque
from dataclasses import dataclass

import numpy as np

logger = logging.getLogger(__name__)
_SPARE = 3  # batches beside those in preparation: the consumer's, and the one it copies ahead
_PAGE = 4096


@dataclass(frozen=True)
class Place:
    """Where a worker process writes an image.

    Args:
        path: of the memory.
        number: tells apart memories that have the same path one after the other.
        length: bytes of the memory.
        start: first byte of the image.
    """

    path: str
    number: int
    length: int
    start: int


@dataclass(frozen=True)
class Room:
    """Memory for the images of one batch.

    Args:
        images: (B, ...) the rows to write.
        place: of the first row; None if no other process can write here.
    """

    images: np.ndarray
    place: Place | None = None

    def place_of(self, row: int) -> Place | None:
        """Where the image ``row`` belongs, None if no other process can write there."""
        place = self.place
        if place is None:
            return None
        start = place.start + row * self.images[0].nbytes
        return Place(place.path, place.number, place.length, start)


class SharedRooms:
    """Rooms of equal size in memory that worker processes can write to.

    A room is free again once nothing refers to its array or to a view of it. While none is free,
    and on systems without such memory, ``take`` gives memory of this process alone; images then
    travel through pipes.

    Args:
        count: batches that are prepared at a time.
        size: bytes of the largest batch.
    """

    _numbers = itertools.count()

    def __init__(self, count: int, size: int):
        self.size = -(-size // _PAGE) * _PAGE
        self._memory: mmap.mmap | None = None
        self._free: deque[int] = deque()
        self._number = next(self._numbers)
        count += _SPARE
        try:
            descriptor = os.memfd_create("mindyolo_ext batches")
        except (AttributeError, OSError) as error:  # not on macOS and Windows
            logger.debug("batches come through pipes: no shared memory here (%s)", error)
            return
        try:
            os.posix_fallocate(descriptor, 0, count * self.size)  # now, or never
            self._memory = mmap.mmap(descriptor, count * self.size)
        except OSError as error:
            os.close(descriptor)
            logger.warning(
                "no %.1f GB of shared memory for batches (%s): images come through pipes, which "
                "is slower; a smaller batch or input, or fewer ranks, needs less",
                count * self.size / 1e9,
                error.strerror or error,
            )
            return
        self._path = f"/proc/{os.getpid()}/fd/{descriptor}"
        self._free.extend(range(count))
        weakref.finalize(self, os.close, descriptor)

    def take(self, shape: tuple[int, ...]) -> Room:
        """A room for uint8 images of ``shape`` (B, H, W, 3); their values are not set."""
        length = int(np.prod(shape))
        if self._memory is None or length > self.size:
            return Room(np.empty(shape, np.uint8))
        try:
            slot = self._free.popleft()
        except IndexError:
            return Room(np.empty(shape, np.uint8))
        start = slot * self.size
        flat = np.frombuffer(self._memory, np.uint8, length, start)  # every view refers to it
        weakref.finalize(flat, self._free.append, slot).atexit = False
        place = Place(self._path, self._number, len(self._memory), start)
        return Room(flat.reshape(shape), place)


class RoomWriter:
    """Writes images into rooms of another process; keeps the memory of the last one mapped."""

    def __init__(self) -> None:
        self._key: tuple[str, int] | None = None
        self._bytes = np.zeros(0, np.uint8)

    def write(self, image: np.ndarray, place: Place) -> bool:
        """Write ``image``; False if the memory cannot be opened from here."""
        key = (place.path, place.number)
        try:
            if key != self._key:
                self._map(place)
                self._key = key
        except OSError as error:
            logger.debug("%s: not opened: %s", place.path, error)
            return False
        target = self._bytes[place.start : place.start + image.nbytes]
        np.copyto(target.reshape(image.shape), image)
        return True

    def _map(self, place: Place) -> None:
        """Map the memory of ``place`` in the place of the last one."""
        descriptor = os.open(place.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_size != place.length:
                raise OSError("it has another size")
            self._bytes = np.frombuffer(mmap.mmap(descriptor, place.length), np.uint8)
        finally:
            os.close(descriptor)

"""Memory for the images of batches, shared with worker processes if the system supports it.

The memory has no name in any file system: it is freed with the last process that uses it, however
that process ends, and is not limited by ``/dev/shm``. Worker processes open it through ``/proc``.
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
_SPARE = 3  # batches in addition to those in preparation: used or prefetched by the consumer
_PAGE = 4096


@dataclass(frozen=True)
class Place:
    """Place where a worker process writes an image.

    Args:
        path: path of the memory.
        number: distinguishes successive memories with the same path.
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
        place: place of the first row; None if other processes cannot write here.
    """

    images: np.ndarray
    place: Place | None = None

    def place_of(self, row: int) -> Place | None:
        """Return the place of image ``row``, None if other processes cannot write there."""
        place = self.place
        if place is None:
            return None
        start = place.start + row * self.images[0].nbytes
        return Place(place.path, place.number, place.length, start)


class SharedRooms:
    """Rooms of equal size in memory that worker processes can write to.

    A room is free again once nothing refers to its array or a view of it. If none is free, and on
    systems without such memory, ``take`` returns private memory, and images are sent through pipes.

    Args:
        count: number of batches in preparation at a time.
        size: size of the largest batch in bytes.
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
        except (AttributeError, OSError) as error:  # does not exist on macOS and Windows
            logger.debug("batches come through pipes: no shared memory here (%s)", error)
            return
        try:
            os.posix_fallocate(descriptor, 0, count * self.size)  # fails now if memory is short
            self._memory = mmap.mmap(descriptor, count * self.size)
        except OSError as error:
            os.close(descriptor)
            logger.warning(
                "cannot allocate %.1f GB of shared memory for batches (%s): images are sent "
                "through pipes, which is slower; use a smaller batch or input, or fewer ranks",
                count * self.size / 1e9,
                error.strerror or error,
            )
            return
        self._path = f"/proc/{os.getpid()}/fd/{descriptor}"
        self._free.extend(range(count))
        weakref.finalize(self, os.close, descriptor)

    def take(self, shape: tuple[int, ...]) -> Room:
        """Take a room for uint8 images of ``shape`` (B, H, W, 3), uninitialized."""
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
    """Write images into rooms of another process, and keep the last memory mapped."""

    def __init__(self) -> None:
        self._key: tuple[str, int] | None = None
        self._bytes = np.zeros(0, np.uint8)

    def write(self, image: np.ndarray, place: Place) -> bool:
        """Write ``image``; return False if the memory cannot be opened."""
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
        """Map the memory of ``place``, replacing the last one."""
        descriptor = os.open(place.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_size != place.length:
                raise OSError("it has another size")
            self._bytes = np.frombuffer(mmap.mmap(descriptor, place.length), np.uint8)
        finally:
            os.close(descriptor)

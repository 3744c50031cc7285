"""Prepare batches of a pipeline ahead, in threads or processes. Uses NumPy and OpenCV only."""

import queue
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace

import cv2
import numpy as np

from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.heap import keep_freed_memory
from mindyolo_ext.data.pipeline import Pipeline, build_pipeline
from mindyolo_ext.data.rooms import Place, Room, SharedRooms
from mindyolo_ext.data.targets import padded_count
from mindyolo_ext.data.types import Batch
from mindyolo_ext.data.worker import PATIENCE, Row, WorkerProcess, prepare_row
from mindyolo_ext.errors import DataError, StuckError, UsageError
from mindyolo_ext.input_spec import InputSpec

SizeSchedule = Callable[[int], tuple[int, int] | None]


class Loader:
    """Yield the batches of an epoch; a seed gives the same batches with any workers.

    The order of an epoch depends only on (seed, epoch). Of each global batch of ``world_size *
    batch_size`` images, rank r gets the rows ``r * batch_size`` to ``(r + 1) * batch_size``, so n
    ranks together see the batches of one rank with an n times larger batch. Use it as a context
    manager, or call ``close``.

    Args:
        source: a ``Pipeline``, or a ``Dataset`` that is only resized (with ``input_spec``).
        batch_size: images per rank and step.
        input_spec: input convention of the model if ``source`` is a ``Dataset``.
        max_boxes: M, boxes per image after padding; None uses the largest possible number, as a
            multiple of 8.
        shuffle: whether every epoch has another random order.
        order: indices of all images in the order of every epoch, instead of the data set's order;
            or a function that returns those of an epoch, in whole batches.
        drop_last: whether to drop the images of an incomplete global batch. Otherwise the last
            batch is padded to the same shape, and ``Batch.valid`` counts its images; a rank may
            then get a batch without images.
        seed: seed of the order; None uses the pipeline's.
        rank, world_size: this process among those that train together.
        workers: number of threads or processes; 0 prepares images in the calling thread.
        worker_kind: ``thread`` (OpenCV and NumPy run in parallel in threads) or ``process`` for
            augmentations with much Python code. Processes are spawned, so the calling script needs
            ``if __name__ == "__main__"``. They write images into shared memory if the system
            supports it.
        opencv_threads: OpenCV threads in this process, from the first epoch until ``close``, and in
            each worker process.
        prefetch: number of batches to prepare ahead.
        patience: seconds without a finished image after which workers count as stuck.
        pixels: form of ``Batch.images``: ``float32`` in the model's convention, or ``uint8`` as
            the pipeline returns it, a quarter of the bytes, for ``backend.pixels.Pixels``.

    Raises: UsageError for an invalid value, TypeError for a source of another kind.
    """

    def __init__(
        self,
        source: Pipeline | Dataset,
        *,
        batch_size: int,
        input_spec: InputSpec | None = None,
        max_boxes: int | None = None,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 2,
        worker_kind: str = "thread",
        prefetch: int = 2,
        order: np.ndarray | Callable[[int], np.ndarray] | None = None,
        patience: float = PATIENCE,
        pixels: str = "float32",
        opencv_threads: int = 1,
    ):
        self.pipeline = _as_pipeline(source, input_spec, seed)
        for name, value, low in (
            ("batch_size", batch_size, 1),
            ("world_size", world_size, 1),
            ("rank", rank, 0),
            ("workers", workers, 0),
            ("prefetch", prefetch, 1),
            ("opencv_threads", opencv_threads, 0),
        ):
            if value < low:
                raise UsageError(f"Loader: {name} must be at least {low}, got {value}")
        if rank >= world_size:
            raise UsageError(f"Loader: rank must be below world_size {world_size}, got {rank}")
        if worker_kind not in ("thread", "process"):
            raise UsageError(f"Loader: worker_kind must be thread or process, got {worker_kind!r}")
        if pixels not in ("float32", "uint8"):
            raise UsageError(f"Loader: pixels must be float32 or uint8, got {pixels!r}")
        if max_boxes is not None and max_boxes < 1:
            raise UsageError(f"Loader: max_boxes must be at least 1, got {max_boxes}")
        if drop_last and len(self.pipeline.dataset) < batch_size * world_size:
            raise UsageError(
                f"Loader: wanted at least one whole batch, {batch_size} images on {world_size} "
                f"ranks, got {len(self.pipeline.dataset)} images: use a smaller batch_size"
            )
        if isinstance(order, np.ndarray) and (
            shuffle or sorted(order) != list(range(len(self.pipeline.dataset)))
        ):
            raise UsageError(
                f"Loader: order must have each of the {len(self.pipeline.dataset)} images once and "
                f"no shuffle, got {len(order)} indices and shuffle {shuffle}"
            )
        self._order = order
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.shuffle, self.drop_last = shuffle, drop_last
        self.seed = self.pipeline.seed if seed is None else seed
        self.max_boxes = padded_count(self.pipeline.max_boxes) if max_boxes is None else max_boxes
        self.workers, self.worker_kind, self.prefetch = workers, worker_kind, prefetch
        self.patience, self.pixels = patience, pixels
        self.opencv_threads = opencv_threads
        self._threads_before: int | None = None  # OpenCV's previous number of threads
        self._rooms: SharedRooms | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._in_work: dict[int, str] = {}  # image -> its file
        self._prepared = 0  # number of images, to detect progress
        self._stuck = False
        # processes, None until started
        self._idle: queue.SimpleQueue[WorkerProcess | None] = queue.SimpleQueue()

    @property
    def dataset(self) -> Dataset:
        """Data set of the pipeline."""
        return self.pipeline.dataset

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches of ``epoch``."""
        whole, rest = divmod(len(self.dataset), self.batch_size * self.world_size)
        return whole if self.drop_last or not rest else whole + 1

    def order(self, epoch: int) -> np.ndarray:
        """Return the image indices of an epoch in order, over all ranks, (N,) for all images."""
        count = len(self.dataset)
        if callable(self._order):
            return self._order(epoch)
        if not self.shuffle:
            return np.arange(count) if self._order is None else self._order
        # separate from the random stream of every image
        return np.random.default_rng([self.seed, epoch, 0, 1]).permutation(count)

    def batch_indices(self, epoch: int) -> list[np.ndarray]:
        """Return this rank's indices of every batch; the last may have fewer than ``batch_size``,
        or none.
        """
        order, total = self.order(epoch), self.batch_size * self.world_size
        starts = [
            step * total + self.rank * self.batch_size for step in range(self.steps_per_epoch)
        ]
        return [order[start : start + self.batch_size] for start in starts]

    def epoch(self, number: int, size_schedule: SizeSchedule | None = None) -> Iterator[Batch]:
        """Yield the batches of epoch ``number`` (from 0).

        Args:
            number: number of the epoch; with the seed it determines order and augmentation, so a
                run can start at any epoch.
            size_schedule: returns the (height, width) for a step of the epoch, None for the spec's.

        Raises: ValueError for an invalid size, before the first batch; any error of a worker, with
            the name of the image file.
        """
        plan = [
            (indices, None if size_schedule is None else size_schedule(step))
            for step, indices in enumerate(self.batch_indices(number))
        ]
        for asked in {size for _, size in plan if size is not None}:
            self.pipeline.input_spec.in_frame(asked)  # raises for a size that the model cannot take
        if self._threads_before is None:
            self._threads_before = cv2.getNumThreads()
        cv2.setNumThreads(self.opencv_threads)
        if self.workers == 0:
            for indices, size in plan:
                room = self._room(size)
                rows = [
                    self._prepare(int(index), number, size, room, row)
                    for row, index in enumerate(indices)
                ]
                yield self._collate(rows, indices, room)
            return
        yield from self._ahead(plan, number)

    def close(self) -> None:
        """End the workers; the next ``epoch`` starts new ones."""
        if self._threads_before is not None:
            cv2.setNumThreads(self._threads_before)
            self._threads_before = None
        self._rooms = None
        if self._pool is not None:
            self._pool.shutdown(wait=not self._stuck, cancel_futures=True)
            self._pool = None
        while not self._idle.empty():
            worker = self._idle.get()
            if worker is not None:
                worker.close()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ahead(
        self, plan: list[tuple[np.ndarray, tuple[int, int] | None]], epoch: int
    ) -> Iterator[Batch]:
        """Yield the batches in order while the workers prepare the next ``prefetch``."""
        if self._pool is None:
            keep_freed_memory()
            self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="loader")
            for _ in range(self.workers if self.worker_kind == "process" else 0):
                self._idle.put(None)
        if self.worker_kind == "process":
            self._share_rooms({size or self.pipeline.input_spec.size for _, size in plan})
        pool = self._pool
        coming: deque[tuple[Future, list[Future]]] = deque()  # batches, each with its rows
        todo = iter(plan)
        with ThreadPoolExecutor(1, thread_name_prefix="collate") as collator:

            def submit() -> None:
                for indices, size in todo:
                    room = self._room(size)
                    rows = [
                        pool.submit(self._prepare, int(index), epoch, size, room, row)
                        for row, index in enumerate(indices)
                    ]
                    coming.append((collator.submit(self._gather, rows, indices, room), rows))
                    return

            try:
                for _ in range(self.prefetch):
                    submit()
                while coming:
                    done = coming.popleft()[0].result()
                    submit()
                    yield done
                    del done  # frees its room as soon as the caller drops the batch
            finally:  # also after break, an error or Ctrl-C
                for batch, rows in coming:
                    batch.cancel()
                    for row in rows:
                        row.cancel()

    def _share_rooms(self, sizes: set[tuple[int, int]]) -> None:
        """Allocate memory for batches of all ``sizes`` (height, width)."""
        largest = self.batch_size * 3 * max((h * w for h, w in sizes), default=0)
        if self._rooms is None or self._rooms.size < largest:
            self._rooms = SharedRooms(self.prefetch, largest)

    def _room(self, size: tuple[int, int] | None) -> Room:
        """Take memory for the images of a batch in the workers' format."""
        height, width = size or self.pipeline.input_spec.size
        if self._rooms is not None:
            return self._rooms.take((self.batch_size, height, width, 3))
        if self.pixels == "uint8":
            return Room(np.empty((self.batch_size, height, width, 3), np.uint8))
        return Room(np.empty((self.batch_size, 3, height, width), np.float32))

    def _prepare(
        self, index: int, epoch: int, size: tuple[int, int] | None, room: Room, row: int
    ) -> Row:
        """Prepare one image for its row in this thread, or in a process that this thread picks."""
        self._in_work[index] = self.dataset.paths[index]
        try:
            if self.workers and self.worker_kind == "process":
                found = self._prepare_in_process(index, epoch, size, room.place_of(row))
            else:
                as_tensor = self.pixels == "float32"
                found = prepare_row(self.pipeline, index, epoch, size, as_tensor=as_tensor)
            if found.image is not None:
                room.images[row] = found.image
            return replace(found, image=None)
        finally:
            self._prepared += 1
            self._in_work.pop(index, None)

    def _prepare_in_process(
        self, index: int, epoch: int, size: tuple[int, int] | None, place: Place | None
    ) -> Row:
        """Prepare one image in a process that this thread picks."""
        worker = self._idle.get()  # one process per thread
        try:
            worker = worker or WorkerProcess(
                self.pipeline, self.patience, opencv_threads=self.opencv_threads
            )
            return worker.prepare(index, epoch, size, place)
        finally:
            self._idle.put(worker if worker is not None and worker.alive else None)

    def _wait_for(self, row: Future) -> Row:
        """Wait for a worker's image. Raises: StuckError if no worker makes progress."""
        while True:
            before = self._prepared
            try:
                # processes detect this themselves, with a better message
                return row.result(self.patience * (1.1 if self.worker_kind == "process" else 1))
            except FutureTimeoutError:
                if row.done():
                    raise  # an error of the worker
                if self._prepared == before:
                    self._stuck = True
                    raise StuckError(
                        f"Loader: no image was finished for {self.patience:g} s; the workers wait "
                        f"for {', '.join(list(self._in_work.values())[:3])}: does the disk respond?"
                        " Check it and start again; train.py continues with --resume"
                    ) from None

    def _gather(self, rows: list[Future], indices: np.ndarray, room: Room) -> Batch:
        """Wait for the images of a batch and complete it; after a failure cancel the others."""
        try:
            return self._collate([self._wait_for(row) for row in rows], indices, room)
        finally:
            for row in rows:
                row.cancel()

    def _collate(self, rows: list[Row], indices: np.ndarray, room: Room) -> Batch:
        """Build the batch of the images in ``room``, padded to its full size."""
        count = self.batch_size
        targets = np.zeros((count, self.max_boxes, 5), np.float32)
        mask = np.zeros((count, self.max_boxes), np.float32)
        padded = np.full(count, -1, np.int64)
        padded[: len(indices)] = indices
        paths = tuple(self.dataset.paths[index] for index in indices)
        for row, (item, path) in enumerate(zip(rows, paths, strict=True)):
            boxes = len(item.targets)
            if boxes > self.max_boxes:
                raise DataError(
                    f"{path}: {boxes} boxes after augmentation, but max_boxes is {self.max_boxes}: "
                    f"raise max_boxes to {padded_count(boxes)}, or leave it out to let the loader "
                    "choose"
                )
            targets[row, :boxes] = item.targets
            mask[row, :boxes] = 1.0
        images = room.images
        if images.dtype != self.pixels:  # processes send uint8, a quarter of the memory
            to_tensor = self.pipeline.input_spec.to_tensor
            tensors = [to_tensor(image) for image in images[: len(rows)]]
            images = np.zeros((count, 3, *images.shape[1:3]), np.float32)
            if tensors:
                images[: len(rows)] = tensors
        images[len(rows) :] = 0
        return Batch(
            images,
            targets,
            mask,
            padded,
            len(rows),
            tuple(item.placement for item in rows),
            paths,
            tuple(item.image_id for item in rows),
        )


def _as_pipeline(
    source: Pipeline | Dataset, input_spec: InputSpec | None, seed: int | None
) -> Pipeline:
    """Convert ``source`` to a pipeline."""
    if isinstance(source, Pipeline):
        if input_spec is not None and input_spec != source.input_spec:
            raise UsageError(
                "Loader: the pipeline has its own input_spec, got another one; leave it out"
            )
        return source
    if not isinstance(source, Dataset):
        raise TypeError(f"Loader: wanted a Pipeline or a Dataset, got {type(source).__name__}")
    if input_spec is None:
        raise UsageError("Loader: a Dataset needs an input_spec, got None")
    return build_pipeline([], input_spec, source, seed=seed or 0)

"""Prepare one image of a batch, here or in a worker process. Uses NumPy and OpenCV only."""

import multiprocessing
import signal
import traceback
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import cv2
import numpy as np

from mindyolo_ext.data.heap import keep_freed_memory
from mindyolo_ext.data.pipeline import Pipeline
from mindyolo_ext.data.rooms import Place, RoomWriter
from mindyolo_ext.data.targets import targets_of
from mindyolo_ext.errors import DeviceError, StuckError, UserError
from mindyolo_ext.input_spec import Placement

PATIENCE = 45.0  # seconds for one image
_PARTING = 5.0  # seconds for a process to end by itself


@dataclass(frozen=True)
class Row:
    """One prepared image: uint8 (H, W, 3) or float32 (3, H, W), None once it is in its place; and
    its boxes (N, 5) as in ``Batch.targets``.
    """

    image: np.ndarray | None
    targets: np.ndarray
    placement: Placement
    image_id: int


def prepare_row(
    pipeline: Pipeline,
    index: int,
    epoch: int,
    size: tuple[int, int] | None,
    *,
    as_tensor: bool = True,
) -> Row:
    """Prepare one image and its boxes as rows of targets, without ignored boxes.

    Args:
        index, epoch, size: see ``Pipeline``.
        as_tensor: whether to return the image in the model's convention, not as uint8.

    Raises: an error that names the photo's file: a UserError of the same kind, or RuntimeError.
    """
    path = pipeline.dataset.paths[index]
    try:
        sample = pipeline(index, epoch, size)
        assert sample.placement is not None  # the pipeline has a step resize
        image = pipeline.input_spec.to_tensor(sample.image) if as_tensor else sample.image
        return Row(image, targets_of(sample), sample.placement, sample.image_id)
    except Exception as error:
        where = f"{path} (image {index}, epoch {epoch})"
        if not isinstance(error, UserError):
            raise RuntimeError(f"{where}: {type(error).__name__}: {error}") from error
        if path in str(error):
            raise
        raise type(error)(f"{where}: {error}") from error


class WorkerProcess:
    """A process that prepares one image at a time.

    Each has its own connection, so a killed or stopped process is noticed even while it sends a
    result; the process pools of the standard library would wait forever.

    Args:
        pipeline: pipeline that prepares the images.
        patience: time limit for one image in seconds, after which the process counts as stuck.
        opencv_threads: OpenCV threads of the process.
    """

    def __init__(self, pipeline: Pipeline, patience: float = PATIENCE, *, opencv_threads: int = 1):
        self._pipeline, self._patience = pipeline, patience
        # never a plain fork: it would copy the caller's threads and framework in a broken state
        kinds = multiprocessing.get_all_start_methods()
        start: Any = multiprocessing.get_context("forkserver" if "forkserver" in kinds else "spawn")
        self._connection, other = start.Pipe()
        self._process = start.Process(
            target=_serve, args=(other, pipeline, opencv_threads), daemon=True
        )
        self.alive = True
        try:
            try:
                self._process.start()
            finally:
                other.close()
            if not self._connection.poll(PATIENCE):
                raise self._stuck("its start", PATIENCE)
            self._connection.recv()
        except (EOFError, OSError) as error:
            if isinstance(error, UserError):
                raise
            raise self._gone() from error

    def prepare(
        self, index: int, epoch: int, size: tuple[int, int] | None, place: Place | None = None
    ) -> Row:
        """Run ``prepare_row`` in the process; the image is uint8.

        Args:
            index, epoch, size: see ``Pipeline``.
            place: where to write the image if possible; the row is then returned without it.

        Raises: what it raised, DeviceError if the process is gone, StuckError if it does not
            answer.
        """
        try:
            self._connection.send((index, epoch, size, place))
            if not self._connection.poll(self._patience):
                raise self._stuck(self._pipeline.dataset.paths[index], self._patience)
            answer, trace = self._connection.recv()
        except (EOFError, OSError):
            raise self._gone() from None
        if isinstance(answer, Exception):
            raise answer from RuntimeError(f"in the worker process:\n{trace}")
        return answer

    def _gone(self) -> DeviceError:
        """Return the error for a process that ended."""
        self.alive = False
        if self._process.pid is not None:
            self._process.join()
        return DeviceError(
            f"Loader: a worker process ended by itself, exit code {self._process.exitcode}: out of "
            'memory, or the script lacks `if __name__ == "__main__"`; worker_kind thread avoids '
            "both"
        )

    def _stuck(self, work: str, seconds: float) -> StuckError:
        """Kill a process that does not finish ``work``, and return the error."""
        self.alive = False
        self._process.kill()
        return StuckError(
            f"Loader: worker process {self._process.pid} did not finish {work} in "
            f"{seconds:g} s: it was stopped, or "
            "waits for a disk that does not respond. Check the disk and start again; train.py "
            "continues with --resume"
        )

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(_PARTING)
        if self._process.is_alive():
            self._process.kill()


def _serve(connection: Connection, pipeline: Pipeline, opencv_threads: int) -> None:
    """Serve requests until the connection closes; the parent handles Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(opencv_threads)
    keep_freed_memory()
    writer = RoomWriter()
    connection.send("ready")
    while True:
        try:
            *task, place = connection.recv()
        except EOFError:
            return
        answer: Row | Exception
        try:
            row = prepare_row(pipeline, *task, as_tensor=False)
            assert row.image is not None
            is_there = place is not None and writer.write(row.image, place)
            answer, trace = replace(row, image=None) if is_there else row, ""
        except Exception as error:
            answer, trace = error, traceback.format_exc()
        try:
            connection.send((answer, trace))
        except OSError:  # the parent has closed the connection
            return

"""Thread that runs the network, on a batch if several images wait."""

import asyncio
import copy
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mindyolo_ext.engine.predict import Detections, Detector
from mindyolo_ext.evaluation.nms import NMSOptions

_AFTER = 0.1  # weight of the latest image in the moving average of its seconds


@dataclass(frozen=True, eq=False)
class _Job:
    """A waiting image.

    Args:
        image: uint8 BGR (h, w, 3).
        options: NMS options.
        answer: future of the result; canceled if the client disconnects.
        begin: called in the network's thread when the image is processed.
    """

    image: np.ndarray
    options: NMSOptions
    answer: "asyncio.Future[Detections]"
    begin: Callable[[], None]


class Network:
    """Run a detector in a separate thread.

    If at least half as many images as the detector's ``batch`` wait with the same options, they
    share a run, which takes as long as a full batch; otherwise they run one at a time.

    Args:
        detector: a ``Detector``, or an object with its ``predict``, ``options`` and ``batch``.
    """

    def __init__(self, detector: Detector):
        self.detector = detector
        self.usual_seconds = 0.1  # moving average of the seconds per image
        self._pool = ThreadPoolExecutor(1, "network")
        self._waiting: list[_Job] = []
        self._task: asyncio.Task | None = None
        self._began: float | None = None  # start of the current run

    def close(self) -> None:
        """End the thread and drop waiting images."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def waiting(self) -> int:
        """Number of waiting images."""
        return sum(not job.answer.done() for job in self._waiting)

    def busy_seconds(self) -> float:
        """Seconds since the current run started; 0 between runs."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    async def find(
        self, image: np.ndarray, options: NMSOptions, begin: Callable[[], None]
    ) -> Detections:
        """Return the boxes of an image.

        Args:
            image: uint8 BGR (h, w, 3).
            options: NMS options.
            begin: called when the image is processed.
        """
        job = _Job(image, options, asyncio.get_running_loop().create_future(), begin)
        self._waiting.append(job)
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._run())
        return await job.answer

    async def _run(self) -> None:
        while jobs := self._next():
            await self._answer(jobs)

    def _next(self) -> list[_Job]:
        """Return the jobs of the next run, in order of arrival; empty if none waits."""
        waiting = [job for job in self._waiting if not job.answer.done()]
        alike = [job for job in waiting if job.options == waiting[0].options]
        most = self.detector.batch
        jobs = alike[: most if 2 * len(alike) >= most else 1]
        self._waiting = [job for job in waiting if job not in jobs]
        return jobs

    async def _answer(self, jobs: list[_Job]) -> None:
        """Set the boxes or the error of each job; an error affects only its own image."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._pool, self._predict, jobs)
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    await self._answer([job])
            elif not jobs[0].answer.done():
                jobs[0].answer.set_exception(error)
            return
        for job, detections in zip(jobs, found, strict=True):
            if not job.answer.done():
                job.answer.set_result(detections)

    def _predict(self, jobs: list[_Job]) -> list[Detections]:
        """Compute the jobs of a run in the network's thread."""
        self._began = began = time.monotonic()
        for job in jobs:
            job.begin()
        detector = copy.copy(self.detector)  # shares the network
        detector.options = jobs[0].options
        try:
            if len(jobs) == 1:
                return [detector.predict(jobs[0].image)]
            return detector.predict([job.image for job in jobs])
        finally:
            seconds = (time.monotonic() - began) / len(jobs)
            self.usual_seconds += _AFTER * (seconds - self.usual_seconds)
            self._began = None

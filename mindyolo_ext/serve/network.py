"""The one thread that runs the network, for several images at once where they wait for it."""

import asyncio
import copy
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mindyolo_ext.engine.predict import Detections, Detector
from mindyolo_ext.evaluation.nms import NMSOptions

_AFTER = 0.1  # weight of the latest image in the moving average of seconds


@dataclass(frozen=True, eq=False)
class _Job:
    """An image that waits.

    Args:
        image: uint8 BGR (h, w, 3).
        options: of its NMS.
        answer: what its client waits for; cancelled if the client left.
        begin: called in the network's thread when its turn comes.
    """

    image: np.ndarray
    options: NMSOptions
    answer: "asyncio.Future[Detections]"
    begin: Callable[[], None]


class Network:
    """Runs a detector in a thread of its own.

    If at least half as many images as the detector's ``batch`` wait with the same options, they
    share a run, which takes as long as a full batch; otherwise they go one by one.

    Args:
        detector: a ``Detector``, or whatever has its ``predict``, ``options`` and ``batch``.
    """

    def __init__(self, detector: Detector):
        self.detector = detector
        self.usual_seconds = 0.1  # of an image, a moving average
        self._pool = ThreadPoolExecutor(1, "network")
        self._waiting: list[_Job] = []
        self._task: asyncio.Task | None = None
        self._began: float | None = None  # the present run

    def close(self) -> None:
        """End the thread; what waits is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def waiting(self) -> int:
        """Images that wait for their run."""
        return sum(not job.answer.done() for job in self._waiting)

    def busy_seconds(self) -> float:
        """How long the present run has taken; 0 between runs."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    async def find(
        self, image: np.ndarray, options: NMSOptions, begin: Callable[[], None]
    ) -> Detections:
        """Boxes of an image.

        Args:
            image: uint8 BGR (h, w, 3).
            options: of its NMS.
            begin: called when its turn comes.
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
        """The jobs of the next run, first come first served; none if nobody waits."""
        waiting = [job for job in self._waiting if not job.answer.done()]
        alike = [job for job in waiting if job.options == waiting[0].options]
        most = self.detector.batch
        jobs = alike[: most if 2 * len(alike) >= most else 1]
        self._waiting = [job for job in waiting if job not in jobs]
        return jobs

    async def _answer(self, jobs: list[_Job]) -> None:
        """Give each job its boxes, or what went wrong; one image's fault is not the others'."""
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
        """Runs in the network's thread."""
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

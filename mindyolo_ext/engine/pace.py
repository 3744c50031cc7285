"""Speed and remaining time of a training, without compilations."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


class Pace:
    """Clock for the steps of an epoch.

    Args:
        images_per_step: over all ranks.

    Attributes:
        waited: seconds spent waiting for data.
    """

    def __init__(self, images_per_step: int):
        self.images_per_step = images_per_step
        self.waited = 0.0
        self._begin = self._mark = time.perf_counter()
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0  # of steps without a compilation
        self._wait = 0.0  # for the current batch

    def waiting_for(self, batches: Iterable[Item]) -> Iterator[Item]:
        """Yield ``batches`` and count the time spent waiting for each."""
        self._mark = time.perf_counter()
        for batch in batches:
            now = time.perf_counter()
            self._wait = now - self._mark
            self.waited += self._wait
            self._mark = now
            yield batch

    def step_taken(self, *, compiled: bool) -> None:
        """Count the step of the current batch, unless something was ``compiled`` for it."""
        now = time.perf_counter()
        if not compiled:
            self._steps += 1
            self._seconds += self._wait + now - self._mark
            self._waited += self._wait
        self._mark = now

    @property
    def seconds(self) -> float:
        """Seconds since the epoch began, including compilations."""
        return time.perf_counter() - self._begin

    @property
    def seconds_per_step(self) -> float | None:
        """Includes waiting for data; None while every step has compiled something."""
        return self._seconds / self._steps if self._steps else None

    def values(self) -> dict[str, float]:
        """``images_per_second`` and ``data_wait``, a share in 0..1, if they are known."""
        if not self._seconds:
            return {}
        return {
            "images_per_second": self._steps * self.images_per_step / self._seconds,
            "data_wait": self._waited / self._seconds,
        }


def duration(seconds: float) -> str:
    """Format a duration: ``45 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"

"""Metrics of the server in Prometheus format."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one server, in a separate registry.

    Args:
        paths: paths that are counted by name; all others count as ``other``.
        waiting: returns the number of requests in progress or waiting.
    """

    def __init__(self, paths: Sequence[str], waiting: Callable[[], int]):
        self._paths = frozenset(paths)
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        prefix = "mindyolo_ext_"
        self._requests = Counter(
            prefix + "requests", "Answers", ("path", "status"), registry=self._registry
        )
        self._boxes = Counter(prefix + "boxes", "Boxes found", ("name",), registry=self._registry)
        self._seconds = Histogram(
            prefix + "seconds",
            "Seconds per image: waiting, decoding, network (with NMS), drawing",
            ("part",),
            buckets=SECONDS,
            registry=self._registry,
        )
        Gauge(
            prefix + "queue", "Requests in progress or waiting", registry=self._registry
        ).set_function(waiting)

    def count(self, path: str, status: int) -> None:
        """Count a response."""
        self._requests.labels(path if path in self._paths else "other", status).inc()

    def count_image(self, names: Iterable[str], seconds: Mapping[str, float]) -> None:
        """Count the boxes of an image by their class, and the seconds of each part."""
        for name in names:
            self._boxes.labels(name).inc()
        for part, value in seconds.items():
            self._seconds.labels(part).observe(value)

    def page(self) -> tuple[bytes, str]:
        """Return the Prometheus text and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

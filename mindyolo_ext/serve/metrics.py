"""Numbers about the server in the format of Prometheus."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one server, with a registry of their own.

    Args:
        paths: addresses that are counted under their own name; all others are ``other``.
        waiting: how many images arrive, wait or are worked on at this moment.
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
            "Seconds of an image: waiting, decoding, network (with NMS), drawing",
            ("part",),
            buckets=SECONDS,
            registry=self._registry,
        )
        Gauge(
            prefix + "queue", "Images that arrive, wait or are worked on", registry=self._registry
        ).set_function(waiting)

    def count(self, path: str, status: int) -> None:
        """Count an answer."""
        self._requests.labels(path if path in self._paths else "other", status).inc()

    def count_image(self, names: Iterable[str], seconds: Mapping[str, float]) -> None:
        """Count the boxes of an image by their class, and the seconds of each part."""
        for name in names:
            self._boxes.labels(name).inc()
        for part, value in seconds.items():
            self._seconds.labels(part).observe(value)

    def page(self) -> tuple[bytes, str]:
        """The text for Prometheus, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

"""Limits of the server."""

from dataclasses import dataclass, fields

from mindyolo_ext.errors import UsageError

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits of one request and of the whole server.

    Args:
        body_mib: maximum size of a request, MiB.
        megapixels: maximum size of an image according to its header, millions of pixels.
        queue: maximum number of requests in progress or waiting; further ones get status 503.
        upload_seconds: time limit for receiving a request.
        answer_seconds: time limit from then to the response.
        open_images: maximum number of decoded images in memory.

    Raises: UsageError for a limit that is not positive.
    """

    body_mib: float = 16.0
    megapixels: float = 50.0
    queue: int = 64
    upload_seconds: float = 15.0
    answer_seconds: float = 30.0
    open_images: int = 4

    def __post_init__(self) -> None:
        for field in fields(self):
            value = vars(self)[field.name]
            if not 0 < value < float("inf"):
                raise UsageError(f"serve: wanted a positive number for {field.name}, got {value}")

    @property
    def body_bytes(self) -> int:
        """Maximum size of a request, bytes."""
        return round(self.body_mib * MIB)

    @property
    def pixels(self) -> int:
        """Maximum size of an image, pixels."""
        return round(self.megapixels * 1e6)

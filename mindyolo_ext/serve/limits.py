"""How much the server takes on."""

from dataclasses import dataclass, fields

from mindyolo_ext.errors import UsageError

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What one client, and all of them together, may ask for.

    Args:
        body_mib: largest request, MiB.
        megapixels: largest image, millions of pixels, by its header.
        queue: images that arrive, wait or are worked on; one more is answered with 503.
        upload_seconds: time for a request to arrive.
        answer_seconds: time from its arrival to its answer.
        open_images: decoded images at a time.

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
        """Largest request, bytes."""
        return round(self.body_mib * MIB)

    @property
    def pixels(self) -> int:
        """Largest image, pixels."""
        return round(self.megapixels * 1e6)

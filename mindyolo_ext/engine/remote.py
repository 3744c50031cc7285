"""Names of images and videos that are not files here."""

import re
import urllib.parse
from dataclasses import dataclass

STANDARD_INPUT = "-"
STREAM_SCHEMES = ("rtsp", "rtsps", "rtmp", "udp", "tcp")
SCHEMES = ("http", "https", *STREAM_SCHEMES)
_UNFIT = re.compile(r"[^\w.\-]+")


@dataclass(frozen=True)
class Remote:
    """A source that is not a file here.

    Args:
        address: ``http(s)://``, ``rtsp://`` and the like, the number of a camera, or ``-``.
    """

    address: str

    @property
    def is_stream(self) -> bool:
        """Whether it is one for sure; of ``http`` only the answer tells."""
        return self.address.isdecimal() or self.address.split("://")[0].lower() in STREAM_SCHEMES

    @property
    def name(self) -> str:
        """A file name for its results, without a suffix that says more than is known."""
        if self.address == STANDARD_INPUT:
            return "stdin"
        if self.address.isdecimal():
            return f"camera{self.address}"
        parts = urllib.parse.urlsplit(self.address)
        last = urllib.parse.unquote(parts.path.rstrip("/").rpartition("/")[2])
        return _UNFIT.sub("_", last or parts.hostname or "stream").strip(".")[-100:] or "stream"

    def __str__(self) -> str:
        """The address without a password."""
        return re.sub(r"//[^/@]*@", "//", self.address)

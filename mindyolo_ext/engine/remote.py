"""Sources that are not local files: addresses, cameras, standard input."""

import re
import urllib.parse
from dataclasses import dataclass

from mindyolo_ext.errors import UsageError, shown

STANDARD_INPUT = "-"
STREAM_SCHEMES = ("rtsp", "rtsps", "rtmp", "udp", "tcp")
SCHEMES = ("http", "https", *STREAM_SCHEMES)
_UNFIT = re.compile(r"[^\w.\-]+")


def is_remote(source: str) -> bool:
    """Whether a source is an address, the number of a camera or standard input."""
    scheme, mark, _ = source.partition("://")
    is_address = bool(mark) and scheme.lower() in SCHEMES
    return source == STANDARD_INPUT or (source.isascii() and source.isdecimal()) or is_address


@dataclass(frozen=True)
class Remote:
    """A source that is not a local file.

    Args:
        address: ``http(s)://``, ``rtsp://`` and so on, the index of a camera, or ``-``.

    Raises: UsageError for an address without a host or with a port that is not a number.
    """

    address: str

    def __post_init__(self) -> None:
        if "://" not in self.address:
            return
        try:
            parts = urllib.parse.urlsplit(self.address)
            is_fit = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:  # an invalid port or address in brackets
            is_fit = False
        if not is_fit:
            raise UsageError(f"predict {shown(str(self), 300)}: wanted SCHEME://HOST[:PORT]/PATH")

    @property
    def is_stream(self) -> bool:
        """Whether it is certainly a stream; for ``http`` only the answer shows it."""
        return self.address.isdecimal() or self.address.split("://")[0].lower() in STREAM_SCHEMES

    @property
    def name(self) -> str:
        """A file name for its results, without a suffix that would be a guess."""
        if self.address == STANDARD_INPUT:
            return "stdin"
        if self.address.isdecimal():
            return f"camera{self.address}"
        parts = urllib.parse.urlsplit(self.address)
        last = urllib.parse.unquote(parts.path.rstrip("/").rpartition("/")[2])
        return _UNFIT.sub("_", last or parts.hostname or "stream").strip(".")[-100:] or "stream"

    def __str__(self) -> str:
        """The address as shown in messages."""
        return without_login(self.address)


def without_login(address: str) -> str:
    """Remove user name and password from an address."""
    return re.sub(r"//[^/]*@", "//", address)

"""Images and videos that are not files here: addresses, cameras, standard input."""

import sys
import urllib.request

import numpy as np

from mindyolo_ext.data.image_file import decode_image
from mindyolo_ext.engine.remote import STANDARD_INPUT, Remote
from mindyolo_ext.engine.video import VideoReader
from mindyolo_ext.errors import DataError, shown

MOST_BYTES = 1 << 26  # of an image from an address or standard input
PATIENCE = 20.0  # seconds for an answer
_STREAM_TYPES = (
    "video/",
    "multipart/x-mixed-replace",
    "application/vnd.apple.mpegurl",
    "application/x-mpegurl",
)


def open_remote(remote: Remote) -> np.ndarray | VideoReader:
    """The image, uint8 BGR (h, w, 3), or the stream that is there.

    Raises: DataError if nothing answers, or something else than an image or a video, or more than
        ``MOST_BYTES``.
    """
    if remote.address == STANDARD_INPUT:
        return decode_image(_limited(sys.stdin.buffer.read(MOST_BYTES + 1), "-"), "standard input")
    if remote.is_stream:
        return VideoReader(remote.address)
    try:
        request = urllib.request.Request(remote.address, headers={"User-Agent": "mindyolo_ext"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            kind = answer.headers.get_content_type()
            is_stream = kind.startswith(_STREAM_TYPES)
            data = b"" if is_stream else answer.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # an URLError is an OSError
        reason = getattr(error, "reason", error)
        raise DataError(f"{remote}: cannot be fetched ({shown(str(reason), 200)})") from error
    if is_stream:
        return VideoReader(remote.address)
    return decode_image(_limited(data, str(remote)), f"{remote} ({shown(kind, 60)})")


def _limited(data: bytes, name: str) -> bytes:
    if len(data) > MOST_BYTES:
        raise DataError(
            f"{name}: wanted an image of at most {MOST_BYTES >> 20} MiB; save it as a file and "
            "name the file"
        )
    return data

"""Read images and videos that are not local files: addresses, cameras, standard input."""

import base64
import http.client
import os
import sys
import time
import urllib.parse
import urllib.request

import numpy as np

from mindyolo_ext.data.image_file import decode_image
from mindyolo_ext.engine.remote import STANDARD_INPUT, Remote
from mindyolo_ext.engine.sources import VIDEO_SUFFIXES
from mindyolo_ext.engine.video import VideoReader
from mindyolo_ext.errors import DataError, UsageError, shown

MAX_BYTES = 1 << 26  # of an image from an address or standard input
PATIENCE_SECONDS = 20  # between two parts of an answer
MAX_SECONDS = 120  # for the whole image
_PLAYLIST_SUFFIX = ".m3u8"
_STREAM_TYPES = (
    "video/",
    "multipart/x-mixed-replace",
    "application/vnd.apple.mpegurl",
    "application/x-mpegurl",
)
# Redirects are followed to http and https only; no handler opens files or other schemes
_HANDLERS = (
    urllib.request.ProxyHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPRedirectHandler,
    urllib.request.HTTPErrorProcessor,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.UnknownHandler,
)


def open_remote(remote: Remote, *, stride: int = 1) -> np.ndarray | VideoReader:
    """Read the image, uint8 BGR (h, w, 3), or open the stream.

    Args:
        stride: for a stream, as in ``VideoReader``.

    Raises: DataError if there is no answer, no image or video in it, or more than ``MAX_BYTES``;
        UsageError if standard input is a terminal.
    """
    if remote.address == STANDARD_INPUT:
        return decode_image(_of_standard_input(), "standard input")
    data, kind = (b"", "") if remote.is_stream else _fetched(remote)
    if not data:
        return VideoReader(remote.address, stride=stride)
    return decode_image(data, f"{shown(str(remote), 300)} ({shown(kind, 60)})")


def _of_standard_input() -> bytes:
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("-: wanted an image on standard input: predict - < photo.jpg")
    data = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise DataError(_too_much("standard input"))
    return data


def _fetched(remote: Remote) -> tuple[bytes, str]:
    """Download an image file and its type as reported by the server; no bytes for a stream.

    Raises: DataError.
    """
    name = shown(str(remote), 300)
    suffix = os.path.splitext(urllib.parse.urlsplit(remote.address).path)[1].lower()
    if suffix in (*VIDEO_SUFFIXES, _PLAYLIST_SUFFIX):
        return b"", ""
    opener = urllib.request.OpenerDirector()
    for handler in _HANDLERS:
        opener.add_handler(handler())
    try:
        with opener.open(_request(remote), timeout=PATIENCE_SECONDS) as answer:
            kind = answer.headers.get_content_type()
            data = b"" if kind.startswith(_STREAM_TYPES) else _body(answer, name)
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, DataError):
            raise
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise DataError(f"{name}: cannot be fetched ({shown(str(reason), 200)})") from error
    if not data and not kind.startswith(_STREAM_TYPES):
        raise DataError(f"{name}: wanted an image, got an empty answer")
    return data, kind


def _request(remote: Remote) -> urllib.request.Request:
    """Create the request; a password in the address becomes a header for its host only."""
    parts = urllib.parse.urlsplit(remote.address)
    login, _, host = parts.netloc.rpartition("@")
    path = urllib.parse.quote(parts.path, safe="/%:@!$&'()*+,;=~-._")
    query = urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    address = urllib.parse.urlunsplit((parts.scheme, host, path, query, ""))
    request = urllib.request.Request(address, headers={"User-Agent": "mindyolo_ext"})
    if login:
        secret = base64.b64encode(urllib.parse.unquote(login).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {secret}")
    return request


def _body(answer: http.client.HTTPResponse, name: str) -> bytes:
    """Read an answer completely. Raises: DataError if it is too large or too slow."""
    begin, parts, size = time.monotonic(), [], 0
    while part := answer.read1(1 << 16):
        parts.append(part)
        size += len(part)
        if size > MAX_BYTES:
            raise DataError(_too_much(name))
        if time.monotonic() - begin > MAX_SECONDS:
            raise DataError(
                f"{name}: wanted an image within {MAX_SECONDS:g} s, got {size} bytes; download it "
                "and give the file"
            )
    if answer.length:
        raise DataError(f"{name}: incomplete, {answer.length} bytes are missing; try again")
    return b"".join(parts)


def _too_much(name: str) -> str:
    return (
        f"{name}: wanted an image of at most {MAX_BYTES >> 20} MiB; save it as a file and name the "
        "file"
    )

"""Read the bytes of an uploaded image, sent as the body or in a form."""

import asyncio
from collections.abc import AsyncGenerator

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from mindyolo_ext.errors import shown
from mindyolo_ext.serve.limits import Limits
from mindyolo_ext.serve.refusal import Refusal

_EXAMPLE = "curl --data-binary @photo.jpg http://HOST:PORT/predict"
_NO_IMAGES = ("application/json", "text/")


async def read_upload(request: Request, limits: Limits) -> bytes:
    """Return the bytes of the image in a request.

    Raises: Refusal for a body that is too large, too slow, empty, or of another kind.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.body_bytes:
        raise _too_large(limits, f"{int(length)} bytes")
    kind = request.headers.get("content-type", "").lower()
    if kind.startswith(_NO_IMAGES):
        raise Refusal(415, f"wanted the bytes of an image, got {shown(kind)}; {_EXAMPLE}")
    read = _read_form if kind.startswith("multipart/") else _read_body
    try:
        data = await asyncio.wait_for(read(request, limits), limits.upload_seconds)
    except asyncio.TimeoutError as error:
        seconds = f"{limits.upload_seconds:g} s"
        raise Refusal(
            408, f"wanted the whole request within {seconds}; send a smaller image"
        ) from error
    if not data:
        raise Refusal(400, f"wanted the bytes of an image, got none; {_EXAMPLE}")
    return data


def _too_large(limits: Limits, got: str) -> Refusal:
    return Refusal(
        413,
        f"wanted at most {limits.body_bytes} bytes, got {got}; send a smaller image, or start the "
        "server with a larger --max_body",
    )


async def _limited(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    """Yield the chunks of the body. Raises: Refusal as soon as it is too large."""
    total = 0
    async for piece in request.stream():
        total += len(piece)
        if total > limits.body_bytes:
            raise _too_large(limits, "more")
        yield piece


async def _read_body(request: Request, limits: Limits) -> bytes:
    return b"".join([piece async for piece in _limited(request, limits)])


async def _read_form(request: Request, limits: Limits) -> bytes:
    """Return the file in a form."""
    parser = MultiPartParser(request.headers, _limited(request, limits), max_files=1, max_fields=0)
    parser.spool_max_size = limits.body_bytes  # keeps everything in memory
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:  # KeyError: form without a boundary
        raise Refusal(
            400,
            "wanted a form with one file and nothing else (conf, iou and classes go into the "
            f"address: /predict?conf=0.4), got: {shown(getattr(error, 'message', 'no boundary'))}",
        ) from error
    files = [value for value in form.values() if isinstance(value, UploadFile)]
    try:
        return await files[0].read() if files else b""
    finally:
        await form.close()

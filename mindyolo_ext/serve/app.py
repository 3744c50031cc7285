"""Routes of the server."""

import asyncio
import base64
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mindyolo_ext import __version__
from mindyolo_ext.engine.predict import Detector
from mindyolo_ext.errors import did_you_mean, shown
from mindyolo_ext.serve.edge import Edge
from mindyolo_ext.serve.limits import Limits
from mindyolo_ext.serve.refusal import Refusal
from mindyolo_ext.serve.service import PATHS, Service
from mindyolo_ext.serve.upload import read_upload

logger = logging.getLogger(__name__)
Made = TypeVar("Made")
CLIENT_LEFT = 499  # appears only in the metrics
MEDIA = {"json": "application/json", "jpg": "image/jpeg", "png": "image/png"}
_PAGE = Path(__file__).with_name("page.html")
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"image": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}


class Parameters(BaseModel):
    """Query parameters of ``/predict``."""

    model_config = ConfigDict(extra="forbid")
    conf: float | None = Field(None, ge=0, le=1, description="minimum score of a box, in 0..1")
    iou: float | None = Field(None, ge=0, le=1, description="IoU of NMS, in 0..1")
    classes: list[str] = Field([], description="names or numbers of classes, comma-separated")
    format: Literal["json", "jpg", "png"] | None = Field(
        None, description="json, jpg or png; default: the Accept header decides"
    )


def create_app(
    detector: Detector, limits: Limits | None = None, *, hosts: Sequence[str] = ("*",)
) -> FastAPI:
    """Create the ASGI application of a detector.

    Args:
        detector: a ``Detector``, or an object with the attributes that ``Service`` uses.
        limits: limits of the server.
        hosts: accepted host names; ``*`` accepts any. This stops DNS rebinding: a foreign web page
            cannot reach the server through a name that resolves to this machine.
    """
    service = Service(detector, limits or Limits())

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="mindyolo_ext", version=__version__, lifespan=life, docs_url=None, redoc_url=None
    )
    app.state.service = service
    _add_predict(app, service)
    _add_about(app, service)
    _add_page(app)
    _add_errors(app)
    app.add_middleware(Edge, metrics=service.metrics, hosts=hosts)
    return app


def _add_predict(app: FastAPI, service: Service) -> None:
    @app.post("/predict", openapi_extra=_BODY)
    async def predict(request: Request, parameters: Annotated[Parameters, Query()]) -> Response:
        """Return the boxes of the image in the body, as JSON or drawn on it."""
        form = parameters.format or accepted(request.headers.get("accept", "*/*"))
        with service.admitted():
            data = await read_upload(request, service.limits)
            answer = await _unless_gone(request, service.answer(data, parameters, form))
        if answer.picture:
            return Response(answer.picture, media_type=MEDIA[form])
        height, width = answer.found.image.shape[:2]
        return JSONResponse(
            {
                "model": service.detector.metadata.model,
                "image": {"width": width, "height": height},
                "detections": answer.found.to_list(),
                "seconds": {part: round(value, 4) for part, value in answer.seconds.items()},
            }
        )


def _add_about(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    async def health() -> Response:
        """Return 200 while the network responds, 503 if it is stuck on an image."""
        stuck = service.stuck_seconds()
        text = f"the network has worked for {stuck:.0f} s on one image" if stuck else "ok"
        content = {"status": text, "queue": service.waiting, "version": __version__}
        return JSONResponse(content, 503 if stuck else 200)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Return metrics for Prometheus."""
        content, media_type = service.metrics.page()
        return Response(content, media_type=media_type)

    @app.get("/model")
    async def model() -> dict[str, Any]:
        """Return the model, its classes and the limits of the server."""
        detector, limits = service.detector, service.limits
        return {
            "model": detector.metadata.model,
            "classes": list(detector.class_names),
            "input": list(detector.input_spec.size),
            "conf": detector.options.conf_thres,
            "iou": detector.options.iou_thres,
            "max_body": limits.body_bytes,
            "max_pixels": limits.pixels,
            "queue": limits.queue,
        }


def _add_page(app: FastAPI) -> None:
    page = _PAGE.read_text(encoding="utf-8")
    policy = page_policy(page)

    @app.get("/", response_class=HTMLResponse)
    async def index() -> Response:
        """Return a web page to drop an image on."""
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})


def page_policy(page: str) -> str:
    """Return a content security policy that allows only this page's script and style, and requests
    only to this server.
    """
    sources = {}
    for tag in ("script", "style"):
        parts = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(part.encode()).digest()) for part in parts]
        sources[tag] = " ".join(f"'sha256-{digest.decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {sources['script']}; style-src {sources['style']}; "
        "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


def _add_errors(app: FastAPI) -> None:
    """Return every error as JSON."""

    @app.exception_handler(Refusal)
    async def refused(_: Request, error: Refusal) -> Response:
        return JSONResponse({"error": error.message}, error.status, error.headers)

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path}: {error.detail}"
        if error.status_code == 404:
            message += f"; addresses: {', '.join(PATHS)}"
        return JSONResponse({"error": shown(message, 300)}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def of_parameters(_: Request, error: RequestValidationError) -> Response:
        return JSONResponse({"error": "; ".join(map(_explained, error.errors()))}, 422)

    @app.exception_handler(ClientDisconnect)
    async def left(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_LEFT)

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> Response:
        text = f"internal error ({type(error).__name__}); see the log of the server"
        return JSONResponse({"error": text}, 500)


def _explained(problem: dict[str, Any]) -> str:
    """Explain an invalid parameter in one sentence."""
    fields = Parameters.model_fields
    name = str(problem["loc"][1]) if len(problem["loc"]) > 1 else ""
    if name not in fields:
        return f"unknown parameter {shown(name)}{did_you_mean(name, fields)}"
    return f"{name}: wanted {fields[name].description}, got {shown(problem.get('input'))}"


def accepted(header: str) -> str:
    """Return the format that the ``Accept`` header prefers. Raises: Refusal without a known one."""
    ranges = []
    for part in header.split(","):
        media, *rest = [word.strip().lower() for word in part.split(";")]
        text = next((word[2:] for word in rest if word.startswith("q=")), "1")
        ranges.append((float(text) if re.fullmatch(r"[01](\.\d*)?", text) else 0.0, media))
    for weight, media in sorted(ranges, key=lambda pair: -pair[0]):
        for form, ours in MEDIA.items():
            if weight and media in (ours, f"{ours.partition('/')[0]}/*", "*/*"):
                return form
    raise Refusal(
        406, f"wanted Accept with one of {', '.join(MEDIA.values())}, got {shown(header)}"
    )


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Made]) -> Made:
    """Return the result of ``work``, or cancel it if the client disconnects.

    Raises: ClientDisconnect.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        watch.cancel()

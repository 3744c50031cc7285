"""Middleware around every request."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mindyolo_ext.errors import shown
from mindyolo_ext.serve.metrics import Metrics

HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


class Edge:
    """Count responses, add headers to them, and reject unknown host names.

    Args:
        app: ASGI application.
        metrics: counters of responses.
        hosts: accepted host names; ``*`` accepts any.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, hosts: Sequence[str] = ("*",)):
        self.app = app
        self.metrics = metrics
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.count(scope["path"], message["status"])
                message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
            await send(message)

        app = self.app if self._is_known(scope) else self._refused
        await app(scope, receive, answered)

    def _is_known(self, scope: Scope) -> bool:
        return "*" in self.hosts or _host(scope) in self.hosts

    async def _refused(self, scope: Scope, receive: Receive, send: Send) -> None:
        text = (
            f"Host: wanted one of {', '.join(self.hosts)}, got {shown(_host(scope))}; start the "
            "server with --host 0.0.0.0, or configure the proxy to send one of these"
        )
        await JSONResponse({"error": text}, 421)(scope, receive, send)


def _host(scope: Scope) -> str:
    """Return the host name of a request; empty if it is malformed."""
    text = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
    try:
        return urlsplit(f"//{text}").hostname or ""
    except ValueError:
        return ""

"""Open the port and run uvicorn until Ctrl-C or SIGTERM."""

import asyncio
import contextlib
import logging
import os
import socket
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from mindyolo_ext.errors import UsageError
from mindyolo_ext.serve.limits import Limits

logger = logging.getLogger(__name__)
PATIENCE_SECONDS = 10.0  # limit for request headers, and for the rest of a request already answered
READ_SECONDS = 30.0  # limit for a client to read the end of a response
STOP_SECONDS = 5  # time for open requests when the server stops
EVERYWHERE = ("0.0.0.0", "::", "")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def open_address(host: str, port: int) -> socket.socket:
    """Open a socket; clients can connect once the server runs.

    Raises: UsageError if the address is not available.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # asyncio sets TCP_NODELAY only if the protocol is given; without it a response waits 40 ms
        # for the acknowledgment of its headers
        opened = socket.socket(family, kind, socket.IPPROTO_TCP)
        try:
            if os.name == "posix":  # on Windows the option would let two servers share a port
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
        except OSError:
            opened.close()
            raise
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"serve: cannot open port {port} on {host} ({error}); choose others with --port and "
            "--host; --port 0 picks a free one"
        ) from error
    return opened


def address_of(opened: socket.socket, host: str) -> str:
    """Return the URL for a browser, with this machine's name if the server is open to others."""
    host = socket.gethostname() if host in EVERYWHERE else host
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{opened.getsockname()[1]}"


def greeting(opened: socket.socket, host: str) -> str:
    """Return the URL of the server and who can reach it."""
    who = (
        "this machine only; use --host 0.0.0.0 for others"
        if host in LOOPBACK
        else "no password: open to everyone who can reach this machine"
    )
    return f"{address_of(opened, host)} ({who}). Stop with Ctrl-C"


def allowed_hosts(host: str) -> tuple[str, ...]:
    """Return the accepted host names: the local ones if the server is for this machine only."""
    return LOOPBACK if host in LOOPBACK else ("*",)


class PatientProtocol(H11Protocol):
    """HTTP/1.1 with time limits for request headers, for the rest of a request that was rejected
    early, and for clients that do not read their response.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the timer for request headers."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Process bytes; the timer runs until they complete a step."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        super().connection_lost(exc)
        self._stop_timer()

    def timeout_keep_alive_handler(self) -> None:
        """Close a silent connection, and finally discard unsent data."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(READ_SECONDS, self.transport.abort)

    def _is_waiting(self) -> bool:
        """Whether the server waits for the client: for headers, or the rest of a request."""
        theirs = self.conn.their_state
        answered = self.conn.our_state is not h11.SEND_RESPONSE
        return theirs is h11.IDLE or (theirs is h11.SEND_BODY and answered)

    def _watch(self) -> None:
        if not self._is_waiting():
            self._stop_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(PATIENCE_SECONDS, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self._is_waiting():
            self.transport.abort()


class Server(uvicorn.Server):
    """uvicorn with the limits of this server.

    Args:
        app: result of ``create_app``.
        limits: limits of the server.
        welcome: message to log as soon as clients can connect.
    """

    def __init__(self, app: FastAPI, limits: Limits, welcome: str = ""):
        super().__init__(
            uvicorn.Config(
                app,
                http=PatientProtocol,
                ws="none",
                log_config=None,
                server_header=False,
                limit_concurrency=4 * limits.queue + 64,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )
        self.welcome = welcome

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen and log the welcome message."""
        await super().startup(sockets)
        if self.started and self.welcome:
            logger.info("%s", self.welcome)


def run(app: FastAPI, opened: socket.socket, limits: Limits, welcome: str) -> None:
    """Serve until Ctrl-C or SIGTERM, then finish open requests."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    server = Server(app, limits, welcome)
    with contextlib.suppress(
        KeyboardInterrupt
    ):  # uvicorn raises the signal again when it has ended
        server.run(sockets=[opened])
    logger.info("stopped")

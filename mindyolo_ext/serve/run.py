"""Opens the address, and runs uvicorn until Ctrl-C or SIGTERM."""

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
PATIENCE_SECONDS = 10.0  # for the head of a request, and for the rest of one that was answered
READ_SECONDS = 30.0  # for a client to read the end of an answer
STOP_SECONDS = 5  # for requests under way when the server ends
EVERYWHERE = ("0.0.0.0", "::", "")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def open_address(host: str, port: int) -> socket.socket:
    """A socket at an address; clients can connect when the server runs.

    Raises: UsageError if the address cannot be had.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # asyncio sets TCP_NODELAY only where the protocol is named; without it an answer waits
        # 40 ms for the acknowledgment of its own head
        opened = socket.socket(family, kind, socket.IPPROTO_TCP)
        try:
            if os.name == "posix":  # elsewhere the option lets two servers share a port
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
        except OSError:
            opened.close()
            raise
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"serve: cannot open port {port} of {host} ({error}); choose others with --port and "
            "--host, --port 0 takes a free one"
        ) from error
    return opened


def address_of(opened: socket.socket, host: str) -> str:
    """The address for a browser; of a whole network, by this machine's name."""
    host = socket.gethostname() if host in EVERYWHERE else host
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{opened.getsockname()[1]}"


def greeting(opened: socket.socket, host: str) -> str:
    """Where the server is, and who reaches it."""
    who = (
        "this machine only; --host 0.0.0.0 lets others in"
        if host in LOOPBACK
        else "without a password for all who reach this machine"
    )
    return f"{address_of(opened, host)} ({who}). Ctrl-C ends"


def allowed_hosts(host: str) -> tuple[str, ...]:
    """Names under which a server at ``host`` answers: its own ones if it is for this machine
    only.
    """
    return LOOPBACK if host in LOOPBACK else ("*",)


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that does not wait for ever: for the head of a request, for the rest of a request
    that was refused in the middle, or for a client that does not read its answer.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Expect the head of a request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take bytes; the time counts until they make the connection move on."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the timer, too."""
        super().connection_lost(exc)
        self._stop_timer()

    def timeout_keep_alive_handler(self) -> None:
        """Close a silent connection, in the end without what is still to be sent."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(READ_SECONDS, self.transport.abort)

    def _is_waiting(self) -> bool:
        """Whether all depends on the client: its head, or the rest of what was answered."""
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
        app: what ``create_app`` returns.
        limits: its limits.
        welcome: logged as soon as clients can connect.
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
        """Listen, and say so."""
        await super().startup(sockets)
        if self.started and self.welcome:
            logger.info("%s", self.welcome)


def run(app: FastAPI, opened: socket.socket, limits: Limits, welcome: str) -> None:
    """Serve until Ctrl-C or SIGTERM, which let the requests under way finish."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    server = Server(app, limits, welcome)
    with contextlib.suppress(
        KeyboardInterrupt
    ):  # uvicorn raises the signal again when it has ended
        server.run(sockets=[opened])
    logger.info("stopped")

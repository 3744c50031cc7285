"""Error response of the server."""

from collections.abc import Mapping


class Refusal(Exception):
    """A request that cannot be served.

    Args:
        status: HTTP status.
        message: what came, what was wanted, what to do.
        headers: additional response headers.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})

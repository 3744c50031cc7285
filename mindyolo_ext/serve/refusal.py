"""An answer that says why there is none."""

from collections.abc import Mapping


class Refusal(Exception):
    """A request that is not answered with boxes.

    Args:
        status: of HTTP.
        message: what came, what was wanted, what to do.
        headers: further headers of the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})

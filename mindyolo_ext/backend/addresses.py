"""Find network addresses of this machine that others can reach. Loads no framework."""

import os
import secrets
import socket
import socketserver
import struct
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

try:
    import fcntl
except ImportError:  # does not exist on Windows
    fcntl = None

# Request for an interface's IPv4 address; the replies of BSD and Linux hold it at the same offset
_GET_ADDRESS = {"linux": 0x8915, "darwin": 0xC0206921}
_ADDRESS = slice(20, 24)
_ELSEWHERE = "192.0.2.1"  # reserved (RFC 5737), so it is reached by the default route
_SECONDS = 3.0  # time limit for a reply from an address


def machine() -> str:
    """Return text that identifies this machine in a run: its name and, for containers that share a
    name, its network.
    """
    try:
        network = os.readlink("/proc/self/ns/net")
    except OSError:
        network = ""
    return f"{socket.gethostname()} {network}"


def interfaces() -> dict[str, str]:
    """Return this machine's IPv4 addresses by network interface, without loopback."""
    found = {}
    request = _GET_ADDRESS.get(sys.platform)
    if fcntl is not None and request is not None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            for _, name in socket.if_nameindex():
                question = struct.pack("256s", name.encode()[:15])
                try:
                    answer = fcntl.ioctl(any_socket.fileno(), request, question)
                except OSError:  # no IPv4 address
                    continue
                found[name] = socket.inet_ntoa(answer[_ADDRESS])
    return {name: address for name, address in found.items() if not is_loopback(address)}


def is_loopback(address: str) -> bool:
    """Whether an IP address can be reached only from this machine."""
    return address.startswith("127.") or address == "::1"


def offered(environ: Mapping[str, str]) -> list[str]:
    """List addresses to offer to other machines, most likely first.

    Args:
        environ: environment; ``GLOO_SOCKET_IFNAME`` limits the interfaces to offer.
    """
    found = interfaces()
    if wanted := environ.get("GLOO_SOCKET_IFNAME"):
        return [found[name] for name in wanted.split(",") if name in found]
    default = towards(_ELSEWHERE)
    return sorted(found.values(), key=lambda address: address != default)


def towards(host: str) -> str:
    """Return the address from which this machine reaches ``host``, empty without a route. Sends
    nothing.
    """
    try:
        ways = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)
    except OSError:
        return ""
    for family, kind, protocol, _, where in ways:
        with socket.socket(family, kind, protocol) as probe:
            try:
                probe.connect(where)
            except OSError:
                continue
            return probe.getsockname()[0]
    return ""


def interface_towards(host: str) -> str:
    """Return the name of the interface to other machines; empty if unknown.

    Args:
        host: host where the ranks meet. If it resolves to the loopback here (Debian: 127.0.1.1),
            the interface of the default route is returned.
    """
    address = towards(host)
    if is_loopback(address):
        address = towards(_ELSEWHERE) or next(iter(interfaces().values()), "")
    return next((name for name, own in interfaces().items() if own == address), "")


@dataclass(frozen=True)
class Offer:
    """Addresses and port where a machine replies with ``token``."""

    addresses: tuple[str, ...]
    port: int
    token: bytes


class _Greeting(socketserver.BaseRequestHandler):
    """Send the token to every client."""

    def handle(self) -> None:
        self.request.sendall(self.server.token)


@contextmanager
def answering(addresses: list[str]) -> Iterator[Offer]:
    """Reply on all addresses of this machine inside the block."""
    with socketserver.TCPServer(("", 0), _Greeting) as server:
        server.token = secrets.token_bytes(16)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield Offer(tuple(addresses), server.server_address[1], server.token)
        finally:
            server.shutdown()


def reached(offer: Offer) -> list[bool]:
    """Return the addresses of an offer that reach the machine that made it, not another one with
    the same private address.
    """
    return [_answers(address, offer) for address in offer.addresses]


def _answers(address: str, offer: Offer) -> bool:
    """Whether the right machine replies at an address."""
    try:
        with socket.create_connection((address, offer.port), _SECONDS) as line:
            line.settimeout(_SECONDS)
            return _read(line, len(offer.token)) == offer.token
    except OSError:
        return False


def _read(line: socket.socket, length: int) -> bytes:
    """Read ``length`` bytes from a connection, fewer if it ends early."""
    found = b""
    while len(found) < length and (part := line.recv(length - len(found))):
        found += part
    return found

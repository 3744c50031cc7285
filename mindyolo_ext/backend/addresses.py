"""Network addresses of this machine, and which of them others can reach. Loads no framework."""

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
except ImportError:  # not on Windows
    fcntl = None

# The request for an interface's IPv4 address; BSD's and Linux's answers hold it at one place
_GET_ADDRESS = {"linux": 0x8915, "darwin": 0xC0206921}
_ADDRESS = slice(20, 24)
_ELSEWHERE = "192.0.2.1"  # belongs to nobody (RFC 5737), so the way there is the default route
_SECONDS = 3.0  # for an answer from an address


def machine() -> str:
    """Return what distinguishes this machine from the others of a run: its name and, for containers
    that share a name, its network.
    """
    try:
        network = os.readlink("/proc/self/ns/net")
    except OSError:
        network = ""
    return f"{socket.gethostname()} {network}"


def interfaces() -> dict[str, str]:
    """IPv4 addresses of this machine by the names of their network interfaces, without loopback."""
    found = {}
    request = _GET_ADDRESS.get(sys.platform)
    if fcntl is not None and request is not None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            for _, name in socket.if_nameindex():
                question = struct.pack("256s", name.encode()[:15])
                try:
                    answer = fcntl.ioctl(any_socket.fileno(), request, question)
                except OSError:  # has none
                    continue
                found[name] = socket.inet_ntoa(answer[_ADDRESS])
    return {name: address for name, address in found.items() if not is_loopback(address)}


def is_loopback(address: str) -> bool:
    """Whether an IP address can be reached only from this machine."""
    return address.startswith("127.") or address == "::1"


def offered(environ: Mapping[str, str]) -> list[str]:
    """Addresses to offer to other machines, the likeliest first.

    Args:
        environ: ``GLOO_SOCKET_IFNAME`` in it names the only interfaces to offer.
    """
    found = interfaces()
    if wanted := environ.get("GLOO_SOCKET_IFNAME"):
        return [found[name] for name in wanted.split(",") if name in found]
    default = towards(_ELSEWHERE)
    return sorted(found.values(), key=lambda address: address != default)


def towards(host: str) -> str:
    """The address of this machine from which it reaches ``host``; empty if there is no way. Nothing
    is sent.
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
    """Name of the interface by which this machine reaches other machines; empty if unknown.

    Args:
        host: where the ranks meet. If this machine takes that name for its loopback's (Debian:
            127.0.1.1), the interface of the default route counts.
    """
    address = towards(host)
    if is_loopback(address):
        address = towards(_ELSEWHERE) or next(iter(interfaces().values()), "")
    return next((name for name, own in interfaces().items() if own == address), "")


@dataclass(frozen=True)
class Offer:
    """Addresses and a port of a machine that answers there with ``token``."""

    addresses: tuple[str, ...]
    port: int
    token: bytes


class _Greeting(socketserver.BaseRequestHandler):
    """Sends the token to every client."""

    def handle(self) -> None:
        self.request.sendall(self.server.token)


@contextmanager
def answering(addresses: list[str]) -> Iterator[Offer]:
    """Answer at all addresses of this machine inside the block."""
    with socketserver.TCPServer(("", 0), _Greeting) as server:
        server.token = secrets.token_bytes(16)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield Offer(tuple(addresses), server.server_address[1], server.token)
        finally:
            server.shutdown()


def reached(offer: Offer) -> list[bool]:
    """Which addresses of an offer lead from here to the machine that made it, and not to another
    one with the same private address.
    """
    return [_answers(address, offer) for address in offer.addresses]


def _answers(address: str, offer: Offer) -> bool:
    """Whether the right machine answers at one address."""
    try:
        with socket.create_connection((address, offer.port), _SECONDS) as line:
            line.settimeout(_SECONDS)
            return _read(line, len(offer.token)) == offer.token
    except OSError:
        return False


def _read(line: socket.socket, length: int) -> bytes:
    """``length`` bytes of a connection, fewer if it ends before."""
    found = b""
    while len(found) < length and (part := line.recv(length - len(found))):
        found += part
    return found

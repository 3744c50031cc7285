"""Read the parts of a tar file. Python's own reader can loop forever on a negative size
(CVE-2025-8194), and supports many features that no checkpoint uses.
"""

from dataclasses import dataclass
from pathlib import Path

from mindyolo_ext.checkpoint.limits import MAX_TAR_PARTS

BLOCK = 512


@dataclass(frozen=True)
class TarPart:
    """A part: its name, whether it is a plain file, and the position of its bytes."""

    name: str
    is_file: bool
    offset: int
    size: int


def tar_parts(path: Path) -> list[TarPart]:
    """List the parts of a tar file in order. Raises: ValueError if it is not one, or is
    truncated.
    """
    total = path.stat().st_size
    parts: list[TarPart] = []
    place = 0
    with path.open("rb") as stream:
        while place + BLOCK <= total:
            stream.seek(place)
            head = stream.read(BLOCK)
            if not any(head):
                break
            size, checksum = _octal(head[124:136]), _octal(head[148:156])
            if checksum != sum(head[:148]) + 8 * ord(" ") + sum(head[156:]):
                raise ValueError(f"the checksum of the header at byte {place} differs")
            if size > total - place - BLOCK:
                raise ValueError(f"a part of {size} bytes, {total - place - BLOCK} are left")
            if len(parts) >= MAX_TAR_PARTS:
                raise ValueError(f"more than {MAX_TAR_PARTS} parts")
            name = head[:100].partition(b"\0")[0].decode("utf-8", "replace")
            parts.append(TarPart(name, head[156:157] in (b"0", b"\0"), place + BLOCK, size))
            place += BLOCK + -(-size // BLOCK) * BLOCK
    if not parts:
        raise ValueError("it has no parts")
    return parts


def _octal(digits: bytes) -> int:
    """Parse a number of a header. Raises: ValueError for anything but octal digits."""
    text = digits.strip(b" \0")
    if not text or not set(text) <= set(b"01234567"):
        raise ValueError(f"a number {digits!r}, wanted octal digits")
    return int(text, 8)

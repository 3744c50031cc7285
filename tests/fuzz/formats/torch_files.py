"""The three containers of ``torch.save``: zip, a stream of pickles, tar."""

import gzip
import io
import pickle
import struct
import warnings
import zipfile
from functools import cache
from random import Random

from ..mutate import LENGTHS, TEXTS, Files, mutate_bytes, sometimes_damaged
from .pickles import ITEM_BYTES, Code, mutated, seed

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
ZIP_FIELDS = {  # signature -> (offset, bytes) of what it declares
    b"PK\x01\x02": ((8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (38, 4), (42, 4)),
    b"PK\x03\x04": ((6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)),
    b"PK\x05\x06": ((4, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)),
}
NAMES = (
    *(
        "../evil",
        "/etc/passwd",
        "archive/../../x",
        "C:/x",
        "archive\\data\\0",
        "archive/data/0\0.x",
    ),
    *("archive/data/0", "archive/data.pkl", "other/data.pkl", "archive/code/a.py", "archive/"),
    *("archive/constants.pkl", "archive/data/1/2", "\x1b[31m", "archive/" + "d/" * 1000, ""),
)


def pickle_file(random: Random, sound: bool) -> Files:
    """A valid zip whose ``data.pkl`` is mutated."""
    code, storages = seed(random)
    return {
        "weights.pt": _zipped(
            _entries(b"".join(code) if sound else _sometimes(random, code), storages)
        )
    }


def zip_file(random: Random, sound: bool) -> Files:
    """A valid ``data.pkl`` in a mutated zip."""
    code, storages = seed(random)
    entries = _entries(b"".join(code), storages)
    if sound:
        return {"weights.pt": _zipped(entries)}
    if random.random() < 0.5:
        _change_entries(random, entries)
    packed = random.random() < 0.3
    content = _zipped(entries, zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED)
    for _ in range(random.choice((0, 1, 1, 2))):
        content = _change_header(random, content)
    if random.random() < 0.02:
        content = gzip.compress(content, mtime=0)
    return {"weights.pt": sometimes_damaged(random, content)}


def _entries(content: bytes, storages: dict[str, bytes]) -> list[tuple[str, bytes]]:
    """Names and contents of a complete archive."""
    data = [(f"archive/data/{key}", numbers) for key, numbers in storages.items()]
    facts = [("archive/byteorder", b"little"), ("archive/version", b"3\n")]
    return [("archive/data.pkl", content), *data, *facts]


def _sometimes(random: Random, code: Code) -> bytes:
    """``code``, usually mutated."""
    return mutated(random, code) if random.random() < 0.7 else b"".join(code)


def _change_entries(random: Random, entries: list[tuple[str, bytes]]) -> None:
    """Delete, enlarge, shrink, rename or repeat one of the entries."""
    row = random.randrange(len(entries))
    name, content = entries[row]
    kind = random.randrange(6)
    if kind == 0:
        del entries[row]
    elif kind == 1:
        entries[row] = (name, mutate_bytes(random, content or b"\0"))
    elif kind == 2:
        entries[row] = (random.choice(NAMES + TEXTS[:20]), content)
    elif kind == 3:
        entries.append((random.choice(NAMES), content))
    elif kind == 4:
        entries[row] = (name, _zeros(random.choice((1 << 16, 1 << 24))))
    else:
        entries.extend((f"archive/data/x{index}", b"") for index in range(2000))


@cache
def _zeros(count: int) -> bytes:
    return bytes(count)


def _zipped(entries: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive of ``entries``; a name may come twice."""
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, content in entries:
            info = zipfile.ZipInfo(name.encode("utf-8", "replace").decode(), (1980, 1, 1, 0, 0, 0))
            info.compress_type = method
            if len(name) < 65_536:
                archive.writestr(info, content)
    return stream.getvalue()


def _change_header(random: Random, content: bytes) -> bytes:
    """``content`` with one field of one header at a limit."""
    signature = random.choice(list(ZIP_FIELDS))
    found = [i for i in range(len(content)) if content.startswith(signature, i)][:200]
    if not found or len(content) > 1 << 20:
        return content
    offset, width = random.choice(ZIP_FIELDS[signature])
    place, data = random.choice(found) + offset, bytearray(content)
    old = int.from_bytes(data[place : place + width], "little")
    new = random.choice((*LENGTHS, old + 1, old - 1, old ^ 1, old * 2)) % 256**width
    data[place : place + width] = new.to_bytes(width, "little")
    return bytes(data)


def stream_file(random: Random, sound: bool) -> Files:
    """The format before 1.6: pickles one after the other, then counts and numbers."""
    code, storages = seed(random)
    parts = [pickle.dumps(part, 2) for part in (MAGIC, PROTOCOL, {"little_endian": True})]
    # a storage's view follows its five parts
    legacy = [b"Nt" if op == b"t" and code[i + 1] == b"Q" else op for i, op in enumerate(code[:-1])]
    legacy.append(code[-1])
    parts += [b"".join(legacy), pickle.dumps(list(storages), 2)]
    sizes = _item_bytes(code)
    for key, content in storages.items():
        parts.append(struct.pack("<q", len(content) // sizes[key]) + content)
    if sound:
        return {"weights.pth": b"".join(parts)}
    parts[3] = _sometimes(random, legacy)
    if random.random() < 0.4:
        row = random.randrange(len(parts))
        kind = random.randrange(4)
        if kind == 0:
            parts[row] = mutate_bytes(random, parts[row])
        elif kind == 1:
            del parts[row]
        elif kind == 2:
            parts[row:row] = [parts[row]] * random.choice((1, 2, 200))
        else:
            number = random.choice((*LENGTHS, -1)) % 2**64
            parts[-1] = struct.pack("<Q", number) + parts[-1][8:]
    return {"weights.pth": sometimes_damaged(random, b"".join(parts))}


def _item_bytes(code: Code) -> dict[str, int]:
    """Bytes of a number, by the key of the storage."""
    sizes = {}
    for index, op in enumerate(code):
        if op.endswith(b"Storage\n"):
            key = pickle.loads(b"\x80\x02" + code[index + 1] + b".")
            sizes[key] = ITEM_BYTES[op[len(b"ctorch\n") : -len(b"Storage\n")].decode()]
    return sizes


def tar_file(random: Random, sound: bool) -> Files:
    """The format before 0.1.10: a tar of storages, tensors and the object that names them."""
    count = random.randint(1, 6)
    kind = b"ctorch\nFloatStorage\n"
    numbers = [count, 1, 0]  # shape, stride, offset
    storages = [pickle.dumps(1, 2), b"\x80\x02(K\x01X\x03\x00\x00\x00cpu" + kind + b"t."]
    storages += [struct.pack("<q", count), bytes(4 * count), pickle.dumps([], 2)]
    tensors = [
        pickle.dumps(1, 2),
        b"\x80\x02(K\x02K\x01" + kind.replace(b"Storage", b"Tensor") + b"t.",
    ]
    if not sound and random.random() < 0.5:
        numbers[random.randrange(3)] = random.choice((0, 2, 3, -1, 2**31, 2**62, -(2**63)))
    axes = 1 if sound else random.choice((1,) * 12 + (0, 2, -1, 2**31 - 1))
    tensors += [struct.pack("<i4x", axes), struct.pack("<3q", *numbers)]
    content = [b"\x80\x02", b"}", b"X\x01\x00\x00\x00w", b"K\x02", b"Q", b"s", b"."]
    if not sound and random.random() < 0.3:
        chosen = random.choice((storages, tensors))
        row = random.randrange(len(chosen))
        chosen[row] = mutate_bytes(random, chosen[row])
    parts = {
        "storages": b"".join(storages),
        "tensors": b"".join(tensors),
        "pickle": b"".join(content) if sound else _sometimes(random, content),
    }
    packed = b"".join(_tar_part(random, name, part, sound) for name, part in parts.items())
    packed += bytes(1024)
    return {"weights.tar": packed if sound else sometimes_damaged(random, packed)}


def _tar_part(random: Random, name: str, content: bytes, sound: bool) -> bytes:
    """A header of 512 bytes with its checksum, and the content in blocks."""
    size = f"{len(content):011o}\0".encode()
    kind = b"0"
    if not sound and random.random() < 0.05:
        size = random.choice(
            (
                b"77777777777\0",
                b"\x80" + bytes(3) + b"\xff" * 8,
                b"\xff" * 12,
                b"-0000000001\0",
                b"9",
            )
        )
    if not sound and random.random() < 0.05:
        kind, name = random.choice((b"1", b"2", b"5", b"L", b"x")), random.choice((name, "../x"))
    head = bytearray(512)
    head[: len(name)] = name.encode()
    head[100:124] = b"0000644\0" + b"0000000\0" * 2
    head[124 : 124 + len(size)] = size
    head[136:148] = b"00000000000\0"
    head[156:157], head[257:265] = kind, b"ustar\00000"
    head[148:156] = b"%06o\0 " % (sum(head[:148]) + 8 * 32 + sum(head[156:]))
    return bytes(head) + content + bytes(-len(content) % 512)

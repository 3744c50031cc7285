"""Pickles as ``torch.save`` writes them: a list of opcodes that is mutated one by one.

Written by hand, because the originals' classes are not installed and PyTorch is not a dependency.
"""

import math
import pickle
import struct
from random import Random
from typing import Any

import numpy as np

from ..mutate import LENGTHS, TEXTS, mutate_bytes, mutate_tree, odd_value

CANARY = "fuzz_canary"  # a module that records its import, and the name of files that attacks make
Code = list[bytes]  # one opcode with its argument each

STORAGES = ("Float", "Float", "Half", "BFloat16", "Double", "Long", "Bool", "Untyped")
ITEM_BYTES = dict(zip(STORAGES[1:], (4, 2, 2, 8, 8, 1, 1)))
EXTRAS: dict[str, Any] = {
    "epoch": 3,
    "names": ["cat", "dog"],
    "args": {"lr": 0.1, "data": "coco.yaml"},
    "best": np.float64(0.5),
    "anchors": np.arange(6.0).reshape(3, 2),
    "optimizer": {"state": {0: {"step": 1}}, "param_groups": [{"lr": 0.1}]},
}
PROTO = b"\x80\x02"
GLOBALS = (
    *("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v3", "torch Size"),
    *("torch._utils _rebuild_parameter", "torch._tensor _rebuild_from_type_v2", "torch float32"),
    *("torch.nn.modules.conv Conv2d", "models.yolo Model", "argparse Namespace", "builtins set"),
    *("collections OrderedDict", "collections defaultdict", "collections Counter"),
    *("collections deque", "numpy dtype", "numpy.core.multiarray _reconstruct"),
    *("numpy.core.multiarray scalar", "numpy.core.numeric _frombuffer", "_codecs encode"),
    *("builtins bytearray", "builtins range", "builtins complex", "builtins slice"),
    *("copyreg _reconstructor", "copyreg __newobj__", "pathlib PosixPath", "datetime datetime"),
    *("builtins getattr", "builtins list", "builtins dict", "torch device", "uuid UUID"),
)
EVIL = (
    *("os system", "posix system", "builtins exec", "builtins eval", "subprocess Popen"),
    *("builtins __import__", "importlib import_module", "runpy run_path", "builtins open"),
    *("torch.hub load", "pickle loads", f"{CANARY} sing", f"{CANARY} Song", "os.path join"),
)
SIMPLE = tuple(
    bytes([code]) for code in b"(.012N]})latedsubQRo\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x94"
)


def plain(value: Any) -> bytes:
    """Opcodes that push an ordinary value."""
    return pickle.dumps(value, 2)[2:-1]


def named(name: str) -> bytes:
    """The opcode that pushes ``module name``."""
    return b"c" + name.replace(" ", "\n").encode() + b"\n"


def tensor(key: str, count: int, shape: tuple[int, ...], kind: str = "Float") -> Code:
    """Opcodes that rebuild a tensor on storage ``key`` of ``count`` numbers."""
    stride, step = [], 1
    for side in reversed(shape):
        stride, step = [step, *stride], step * side
    return [
        *(named("torch._utils _rebuild_tensor_v2"), b"(", b"("),
        *(plain("storage"), named(f"torch {kind}Storage"), plain(key), plain("cpu"), plain(count)),
        *(b"t", b"Q", plain(0), b"(", *map(plain, shape), b"t", b"(", *map(plain, stride), b"t"),
        *(b"\x89", named("collections OrderedDict"), b")", b"R", b"t", b"R"),
    ]


def mapping(items: dict[str, Code]) -> Code:
    """Opcodes of a dict."""
    return [
        b"}",
        b"(",
        *(code for key, value in items.items() for code in (plain(key), *value)),
        b"u",
    ]


def module(parameters: dict[str, Code], children: dict[str, Code] | None = None) -> Code:
    """Opcodes of a pickled ``torch.nn.Module``."""
    state = {
        "training": [plain(False)],
        "_parameters": mapping(parameters),
        "_buffers": mapping({}),
        "_modules": mapping(children or {}),
    }
    return [named("models.yolo Model"), b")", b"\x81", *mapping(state), b"b"]


def seed(random: Random, sound: bool = True) -> tuple[Code, dict[str, bytes]]:
    """An object, and its storages by key; if it is not ``sound``, it has odd names and extras."""
    odd = 0.0 if sound else random.choice((0.0, 0.0, 0.3))
    weights: dict[str, Code] = {}
    storages: dict[str, bytes] = {}
    for index in range(random.randint(1, 4)):
        shape = tuple(random.choices((1, 2, 3, 4), k=random.choice((0, 1, 2, 4))))
        kind, key = random.choice(STORAGES[:-1]), str(index)
        name = f"backbone.{index}.conv.weight" if random.random() >= odd else random.choice(TEXTS)
        weights[name] = tensor(key, math.prod(shape), shape, kind)
        storages[key] = bytes(math.prod(shape) * ITEM_BYTES[kind])
    wrapper = random.choice(("", "model", "state_dict", "module"))
    if wrapper == "module":
        return [PROTO, *module(weights, {"head": module(weights)}), b"."], storages
    if not wrapper:
        return [PROTO, *mapping(weights), b"."], storages
    extras = EXTRAS if random.random() >= odd * 2 else mutate_tree(random, EXTRAS)
    beside = {str(key): [plain(value)] for key, value in extras.items()}
    return [PROTO, *mapping({wrapper: mapping(weights), **beside}), b"."], storages


def mutated(random: Random, code: Code) -> bytes:
    """``code`` with a few opcodes changed, as bytes."""
    code = list(code)
    for _ in range(random.choice((1, 1, 2, 4))):
        place = random.randrange(1, len(code))
        change = random.choice((_lose, _double, _swap, _put, _put, _number, _number, _text, _name))
        change(random, code, place)
    if random.random() < 0.15:
        code[1:1] = random.choice((_attack, _attack, _bomb))(random)
    content = b"".join(code)
    return mutate_bytes(random, content, 1) if random.random() < 0.1 else content


def _lose(_: Random, code: Code, place: int) -> None:
    if len(code) > 2:
        del code[place]


def _double(random: Random, code: Code, place: int) -> None:
    code[place:place] = code[place : place + random.choice((1, 5, 20))] * random.choice((1, 2, 200))


def _swap(random: Random, code: Code, place: int) -> None:
    other = random.randrange(1, len(code))
    code[place], code[other] = code[other], code[place]


def _put(random: Random, code: Code, place: int) -> None:
    """Insert an opcode out of context, or one with a wrong argument."""
    length = random.choice(LENGTHS)
    lying = b"".join(
        (
            random.choice((b"X", b"B", b"T", b"\x8b", b"r", b"j", b"J")),
            struct.pack("<I", length % 2**32),
        )
    )
    long = random.choice((b"\x8d", b"\x8e", b"\x95", b"\x96")) + struct.pack("<Q", length % 2**64)
    extension = random.choice((b"\x82\xf0", b"\x83\xf0\x00", b"\x97", b"\x98", b"\x93", b"i\n\n"))
    code.insert(place, random.choice((random.choice(SIMPLE), lying, long, extension)))


def _number(random: Random, code: Code, place: int) -> None:
    """Replace a whole number, the next one from ``place`` on."""
    numbers = [i for i, op in enumerate(code) if op[:1] in b"KMJ\x8a" and i >= place]
    value = random.choice((*LENGTHS, -1, 3, 5, 2**40, 2**70, 10**400))
    if numbers:
        code[random.choice(numbers)] = plain(value)


def _text(random: Random, code: Code, place: int) -> None:
    """Replace a text, or put an odd value in the place of any opcode."""
    texts = [i for i, op in enumerate(code) if op[:1] == b"X" and i >= place]
    if texts and random.random() < 0.7:
        text = random.choice(TEXTS).encode("utf-8", "surrogatepass")
        code[random.choice(texts)] = b"X" + struct.pack("<I", len(text)) + text
    else:
        code[place] = plain(odd_value(random))


def _name(random: Random, code: Code, place: int) -> None:
    """Replace a name, or call one with whatever arguments are on the stack."""
    names = [i for i, op in enumerate(code) if op[:1] == b"c" and i >= place]
    name = named(random.choice(GLOBALS + EVIL))
    if names and random.random() < 0.7:
        code[random.choice(names)] = name
    else:
        arguments = [plain(odd_value(random)) for _ in range(random.randint(0, 3))]
        code[place:place] = [name, b"(", *arguments, b"t", random.choice((b"R", b"\x81"))]


def _attack(random: Random) -> Code:
    """Opcodes that run something when Python's own unpickler reads them, and leave nothing on the
    stack.
    """
    command = plain(f"touch {CANARY}")
    import_it = plain(f"import {CANARY}")
    return random.choice(
        (
            [named("os system"), b"(", command, b"t", b"R", b"0"],
            [named("builtins exec"), b"(", import_it, b"t", b"R", b"0"],
            [b"(", command, b"ios\nsystem\n", b"0"],
            [b"(", named("posix system"), command, b"o", b"0"],
            [named(f"{CANARY} sing"), b")", b"R", b"0"],
            [named(f"{CANARY} Song"), b")", b"\x81", plain({"a": 1}), b"b", b"0"],
            [plain("os"), plain("system"), b"\x93", b"(", command, b"t", b"R", b"0"],
            [named("builtins getattr"), b"(", named("os path"), plain("os"), b"t", b"R", b"0"],
        )
    )


def _bomb(random: Random) -> Code:
    """Opcodes that grow when they are run: doubling, nesting, copying, repeating."""
    count = random.choice((20, 40, 5000))
    return random.choice(
        (
            [b"N", *[b"2", b"\x86"] * min(count, 100), b"0"],
            [b"]" * count, b"a" * (count - 1), b"0"],
            [b"]q\x00", *[b"h\x00", b"h\x00", b"h\x00", b"(", b"h\x00", b"h\x00", b"e"] * count],
            [
                named("collections OrderedDict"),
                b"(",
                b"]",
                b"(",
                *[b")"] * count,
                b"e",
                b"t",
                b"R",
                b"0",
            ],
            [named("builtins bytearray"), b"(", plain(random.choice(LENGTHS)), b"t", b"R", b"0"],
            [
                named("builtins range"),
                b"(",
                plain(2**62),
                b"t",
                b"R",
                b"q\x00",
                b"0",
                named("builtins list"),
                b"(",
                b"h\x00",
                b"t",
                b"R",
                b"0",
            ],
            [plain("z" * 60_000), b"q\x00", b"0", b"]", b"(", *[b"h\x00"] * count, b"e", b"0"],
            [b"L" + b"9" * 5000 + b"L\n", b"0"],
            [b"(" * count, b"1" * count],
            [plain("a"), b"q\x01", b"0", b"}", *[b"q\x02", b"h\x01", b"h\x02", b"s"] * count, b"0"],
        )
    )

"""A pickle reader that runs nothing: a separate interpreter for the pickle opcodes.

Python's unpickler calls what the file names. This one never resolves a callable that a file names:
a name becomes a ``GlobalName``, an object of an unknown class becomes a ``Record``, and the few
objects that weights need (tensors, ordered dicts, NumPy arrays) are rebuilt here from checked
arguments. The standard library's ``pickletools``, which executes nothing either, decodes the
opcodes.
"""

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from mindyolo_ext.checkpoint.limits import (
    MAX_AXES,
    MAX_INTEGER_BITS,
    MAX_KEY_PARTS,
    MAX_NAME_CHARACTERS,
    MAX_PICKLE_BYTES,
    MAX_SIZE,
    MAX_TEXT_BYTES,
    RECORD_STEPS,
    REPEATED_ELEMENTS,
    SET_STEPS,
    Budget,
)
from mindyolo_ext.checkpoint.pickle_policy import resolve_global
from mindyolo_ext.checkpoint.records import (
    ArrayRecord,
    DtypeRecord,
    GlobalName,
    Record,
    StorageRecord,
    TensorRecord,
)
from mindyolo_ext.errors import CheckpointError, UnsafeCheckpointError, shown

_MARK = object()
_PUSH_ARGUMENT = {
    "INT",
    "LONG",
    "LONG1",
    "LONG4",
    "BININT",
    "BININT1",
    "BININT2",
    "FLOAT",
    "BINFLOAT",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
    "UNICODE",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
    "BYTEARRAY8",
}
# How bound methods are pickled, such as the ``forward`` of a fused layer; see ``_Machine.method``
_BINDER = GlobalName("builtins", "getattr", "method")
# types of keys, alone or in a tuple; records compare by identity, not by content
_KEYS = (
    str,
    int,
    float,
    bytes,
    type(None),
    GlobalName,
    Record,
    StorageRecord,
    TensorRecord,
    ArrayRecord,
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_REFUSED = {
    "EXT1": "an extension code",
    "EXT2": "an extension code",
    "EXT4": "an extension code",
    "NEXT_BUFFER": "a buffer outside the file",
    "READONLY_BUFFER": "a buffer outside the file",
}


def read_pickle(
    stream: BinaryIO,
    *,
    where: str,
    budget: Budget,
    storage: Callable[[Any], Any] | None = None,
) -> Any:
    """Read the next object of ``stream`` as plain containers, primitives and records.

    Args:
        stream: binary file; afterwards it is positioned after the pickle.
        where: file (and part) for error messages.
        budget: the cost of the file so far.
        storage: converts a persistent id to a record; without it, such ids are refused.

    Raises: UnsafeCheckpointError for names and opcodes that weights do not need, CheckpointError
        for anything broken or beyond ``limits``.
    """
    machine = _Machine(where, budget, storage)
    try:
        return machine.run(stream)
    except CheckpointError:
        raise
    except (
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        AttributeError,
        RecursionError,
        OverflowError,
        MemoryError,
    ) as error:
        raise CheckpointError(
            f"{where}: the pickled part is broken ({type(error).__name__}: "
            f"{shown(str(error), 200)}), "
            "wanted an object saved by torch.save"
        ) from error


class _Machine:
    """Stack, memo and the meaning of each opcode."""

    def __init__(self, where: str, budget: Budget, storage: Callable[[Any], Any] | None):
        self.where = where
        self.budget = budget
        self.storage = storage
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.names: dict[tuple[str, str], GlobalName] = {}
        self.binds: set[str] = set()  # "named" and "used" of ``_BINDER``

    def run(self, stream: BinaryIO) -> Any:
        """Interpret opcodes up to STOP."""
        start = stream.tell()
        for opcode, argument, position in pickletools.genops(stream):
            self.budget.take_steps(1)
            if position is not None and position - start > MAX_PICKLE_BYTES:
                raise CheckpointError(
                    f"{self.where}: the pickled part is longer than {MAX_PICKLE_BYTES} bytes, "
                    "which no description of weights needs"
                )
            name = opcode.name
            if name in _PUSH_ARGUMENT:
                self.stack.append(self.value(argument))
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name == "STOP":
                break
            elif name in _REFUSED:
                raise UnsafeCheckpointError(
                    f"{self.where}: refused, the pickle uses {name} ({_REFUSED[name]}), "
                    "which torch.save never writes; nothing was run"
                )
            else:
                _STEPS[name](self, argument)
        if self.binds == {"named"}:
            # raises, because no method was bound
            resolve_global(_BINDER.module, _BINDER.name, where=self.where)
        if len(self.stack) != 1 or self.stack[0] is _MARK:
            raise CheckpointError(
                f"{self.where}: the pickle leaves {len(self.stack)} objects on its stack, wanted 1"
            )
        return self.stack.pop()

    def value(self, argument: Any) -> Any:
        """Return a text, bytes or number of the file. Raises: CheckpointError beyond its limit."""
        if isinstance(argument, int):
            if argument.bit_length() > MAX_INTEGER_BITS:
                raise CheckpointError(
                    f"{self.where}: {shown(argument)}, the limit is {MAX_INTEGER_BITS}"
                )
        elif isinstance(argument, (str, bytes, bytearray)) and len(argument) > MAX_TEXT_BYTES:
            raise CheckpointError(
                f"{self.where}: a text of {len(argument)} bytes, the limit is {MAX_TEXT_BYTES}"
            )
        return argument

    def pop(self) -> Any:
        """Remove and return the top object."""
        value = self.stack.pop()
        if value is _MARK:
            raise CheckpointError(f"{self.where}: broken pickle, a mark instead of an object")
        return value

    def top(self) -> Any:
        """Return the top object without removing it."""
        if not self.stack or self.stack[-1] is _MARK:
            raise CheckpointError(f"{self.where}: broken pickle, no object where one was wanted")
        return self.stack[-1]

    def pop_to_mark(self) -> list[Any]:
        """Remove and return the objects above the last mark, and remove the mark."""
        items: list[Any] = []
        while True:
            value = self.stack.pop()
            if value is _MARK:
                return items[::-1]
            items.append(value)

    def set_items(self, items: list[Any]) -> None:
        """Put key, value, key, value ... into the container on top."""
        target = self.top()
        target = target.dict_items if isinstance(target, Record) else target
        if not isinstance(target, dict) or len(items) % 2:
            raise CheckpointError(
                f"{self.where}: broken pickle, {len(items)} items for a {_kind(target)}"
            )
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self.key(key)] = value

    def append_items(self, items: list[Any]) -> None:
        """Append to the list on top."""
        target = self.top()
        target = target.list_items if isinstance(target, Record) else target
        if not isinstance(target, list):
            raise CheckpointError(f"{self.where}: broken pickle, appends to a {_kind(target)}")
        target.extend(items)

    def add_items(self, items: list[Any]) -> None:
        """Add to the set on top."""
        target = self.top()
        if not isinstance(target, set):
            raise CheckpointError(f"{self.where}: broken pickle, adds to a {_kind(target)}")
        target.update(map(self.key, items))

    def key(self, key: Any) -> Any:
        """Return ``key`` if it is allowed in a dict or set: hashing a deep tuple could exhaust the
        C stack.
        """
        if isinstance(key, str):
            return key
        flat = key if isinstance(key, tuple) else (key,)
        if isinstance(key, frozenset):
            flat = ()  # its parts were keys already
        if len(flat) > MAX_KEY_PARTS or any(not isinstance(part, _KEYS) for part in flat):
            raise CheckpointError(f"{self.where}: broken pickle, a {_kind(key)} is used as a key")
        return key

    def dict_of(self, items: list[Any]) -> dict:
        """Build a dict from key, value, key, value ..."""
        self.stack.append({})
        self.set_items(items)
        return self.stack.pop()

    def global_name(self, module: Any, name: Any) -> GlobalName:
        """Return the stand-in for ``module.name``."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise UnsafeCheckpointError(
                f"{self.where}: refused, a name is built from {_kind(module)} and {_kind(name)}"
            )
        if len(module) + len(name) > MAX_NAME_CHARACTERS:
            raise CheckpointError(
                f"{self.where}: the name of a class has {len(module) + len(name)} characters, the "
                f"limit is {MAX_NAME_CHARACTERS}"
            )
        if module in ("builtins", "__builtin__") and name == _BINDER.name:
            self.binds.add("named")
            return _BINDER
        known = self.names.get((module, name))
        if known is None:
            known = resolve_global(module, name, where=self.where)
            self.names[module, name] = known
        return known

    def instance(self, cls: Any, args: Any, keywords: Any = None) -> Any:
        """Return the stand-in for ``cls(*args, **keywords)``; only our own rebuild functions are
        called.
        """
        if not isinstance(cls, GlobalName):
            raise UnsafeCheckpointError(
                f"{self.where}: refused, the file tries to call a {_kind(cls)}; nothing was run"
            )
        if not isinstance(args, tuple) or not isinstance(keywords, (dict, type(None))):
            raise CheckpointError(
                f"{self.where}: broken pickle, arguments of {cls.qualified} are a {_kind(args)}"
            )
        if cls.kind == "safe":
            if keywords:
                raise CheckpointError(
                    f"{self.where}: {cls.qualified} came with keyword arguments, wanted none"
                )
            return _REBUILD[cls.qualified](self, args)
        if cls.kind == "class":
            self.budget.take_steps(RECORD_STEPS)
            self.budget.copy_items(len(keywords or ()))
            return Record(cls, args, dict(keywords or {}))
        if cls is _BINDER:
            return self.method(*args)
        raise UnsafeCheckpointError(
            f"{self.where}: refused, the file tries to call {cls.qualified!r}; nothing was run"
        )

    def method(self, *args: Any) -> GlobalName:
        """Return the name of a method of an inert object; any other lookup is refused."""
        if (
            len(args) != 2
            or not isinstance(args[0], Record)
            or not isinstance(args[1], str)
            or len(args[1]) > MAX_NAME_CHARACTERS
            or not args[1].isidentifier()
            or args[1].startswith("_")
        ):
            resolve_global(_BINDER.module, _BINDER.name, where=self.where)  # raises
        self.binds.add("used")
        return GlobalName(args[0].cls.module, f"{args[0].cls.name}.{args[1]}", "mention")

    def persistent(self, key: Any) -> Any:
        """Return the record of a persistent id."""
        if self.storage is None:
            raise UnsafeCheckpointError(f"{self.where}: refused, an unexpected persistent id")
        return self.storage(key)

    def build(self) -> None:
        """Apply the top object as the state of the object below it."""
        state = self.pop()
        target = self.top()
        if isinstance(target, Record):
            for part in state if isinstance(state, tuple) and len(state) == 2 else (state,):
                if isinstance(part, dict):
                    self.budget.copy_items(len(part))
                    target.state.update(part)
                elif part is not None:
                    target.state["__state__"] = state
        elif isinstance(target, ArrayRecord):
            self.build_array(target, state)
        elif isinstance(target, DtypeRecord):
            if (
                not isinstance(state, tuple)
                or len(state) < 2
                or state[1] not in ("<", ">", "=", "|")
            ):
                raise CheckpointError(f"{self.where}: the state of a NumPy dtype is broken")
            target.order = state[1]
        elif not isinstance(target, (dict, set, list, TensorRecord)):
            raise UnsafeCheckpointError(
                f"{self.where}: refused, the file tries to change a {_kind(target)}; "
                "nothing was run"
            )

    def build_array(self, target: ArrayRecord, state: Any) -> None:
        """Fill a NumPy array from (version, shape, dtype, fortran order, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], DtypeRecord):
            raise CheckpointError(f"{self.where}: the state of a NumPy array is broken")
        _, shape, dtype, fortran, content = state
        target.value = self.array(content, dtype, shape, bool(fortran))

    def array(
        self, content: Any, dtype: DtypeRecord, shape: Any, fortran: bool
    ) -> np.ndarray | None:
        """Build an array from bytes; None if it holds Python objects, which are not read."""
        resolved = dtype.resolve()
        if resolved is None:
            return None
        content = content.encode("latin-1") if isinstance(content, str) else content
        shape = self.sizes(shape, "a NumPy array")
        wanted = int(resolved.itemsize) * _product(shape)
        if not isinstance(content, (bytes, bytearray)) or len(content) != wanted:
            size = len(content) if isinstance(content, (bytes, bytearray)) else _kind(content)
            raise CheckpointError(
                f"{self.where}: a NumPy array of shape {shape} holds {size} bytes, wanted {wanted}"
            )
        self.budget.copy_bytes(wanted)
        return np.frombuffer(bytes(content), resolved).reshape(shape, order="F" if fortran else "C")

    def sizes(self, value: Any, what: str) -> tuple[int, ...]:
        """Check that ``value`` is a tuple of sizes >= 0."""
        if (
            not isinstance(value, (tuple, list))
            or len(value) > MAX_AXES
            or any(not isinstance(v, int) or not 0 <= v <= MAX_SIZE for v in value)
        ):
            raise CheckpointError(
                f"{self.where}: {what} has a {_kind(value)} for its shape or stride, wanted at "
                f"most {MAX_AXES} whole numbers >= 0 of 64 bits"
            )
        return tuple(int(v) for v in value)

    def tensor(
        self, storage: Any, offset: Any, shape: Any, stride: Any, *, dtype: str | None = None
    ) -> TensorRecord:
        """Build a checked view of ``storage``."""
        if not isinstance(storage, StorageRecord):
            raise CheckpointError(
                f"{self.where}: a tensor rests on a {_kind(storage)}, wanted a storage"
            )
        dtype = dtype or storage.dtype or "uint8"
        shape, stride = self.sizes(shape, "a tensor"), self.sizes(stride, "a tensor")
        self.budget.take_steps(RECORD_STEPS + len(shape))
        if not isinstance(offset, int) or not 0 <= offset <= MAX_SIZE or len(shape) != len(stride):
            shown_offset = offset if isinstance(offset, int) else _kind(offset)
            raise CheckpointError(
                f"{self.where}: a tensor of storage {storage.key!r} has offset {shown_offset}, "
                f"shape {shape} and stride {stride}, wanted an offset >= 0 and one stride per axis"
            )
        available = storage_bytes(storage) // item_size(dtype)
        record = TensorRecord(storage, dtype, offset, shape, stride)
        last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        if record.count and last >= available:
            raise CheckpointError(
                f"{self.where}: a tensor of shape {shape}, stride {stride}, offset {offset} needs "
                f"{last + 1} elements, storage {storage.key!r} has {available}"
            )
        if record.count > max(available, REPEATED_ELEMENTS):
            raise CheckpointError(
                f"{self.where}: a tensor of shape {shape} repeats the {available} elements of "
                f"storage {storage.key!r} into {record.count}, which no trained weight does"
            )
        return record


def item_size(dtype: str | None) -> int:
    """Return the bytes per element; None means bytes."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype or "uint8").itemsize


def storage_bytes(storage: StorageRecord) -> int:
    """Return the bytes that the storage declares."""
    return storage.count * item_size(storage.dtype)


def _product(sizes: tuple[int, ...]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


def _kind(value: Any) -> str:
    """Return a short name for the kind of ``value``."""
    return value.qualified if isinstance(value, (GlobalName, Record)) else type(value).__name__


def _nothing(_machine: _Machine, _: Any) -> None:
    """Ignore version and framing, which carry no object."""


def _memoize(machine: _Machine, index: int | None) -> None:
    machine.memo[len(machine.memo) if index is None else index] = machine.top()


def _recall(machine: _Machine, index: int) -> None:
    machine.stack.append(machine.memo[index])


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    """Create the handler of TUPLE1, TUPLE2 and TUPLE3."""

    def step(machine: _Machine, _: Any) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.stack.append(tuple(items[::-1]))

    return step


def _global(machine: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.stack.append(machine.global_name(module, name))


def _stack_global(machine: _Machine, _: Any) -> None:
    name = machine.pop()
    machine.stack.append(machine.global_name(machine.pop(), name))


def _inst(machine: _Machine, argument: str) -> None:
    args = tuple(machine.pop_to_mark())
    module, _, name = argument.partition(" ")
    machine.stack.append(machine.instance(machine.global_name(module, name), args))


def _obj(machine: _Machine, _: Any) -> None:
    cls, *args = machine.pop_to_mark()
    machine.stack.append(machine.instance(cls, tuple(args)))


def _reduce(machine: _Machine, _: Any) -> None:
    args = machine.pop()
    machine.stack.append(machine.instance(machine.pop(), args))


def _newobj_ex(machine: _Machine, _: Any) -> None:
    keywords, args = machine.pop(), machine.pop()
    machine.stack.append(machine.instance(machine.pop(), args, keywords))


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _empty_set(machine: _Machine, _: Any) -> None:
    machine.budget.take_steps(SET_STEPS)
    machine.stack.append(set())


def _frozenset(machine: _Machine, _: Any) -> None:
    machine.budget.take_steps(SET_STEPS)
    machine.stack.append(frozenset(machine.key(item) for item in machine.pop_to_mark()))


_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": _nothing,
    "FRAME": _nothing,
    "MARK": lambda m, _: m.stack.append(_MARK),
    "POP": lambda m, _: m.stack.pop() and None,
    "POP_MARK": lambda m, _: m.pop_to_mark() and None,
    "DUP": lambda m, _: m.stack.append(m.top()),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_SET": _empty_set,
    "LIST": lambda m, _: m.stack.append(m.pop_to_mark()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_to_mark())),
    "DICT": lambda m, _: m.stack.append(m.dict_of(m.pop_to_mark())),
    "FROZENSET": _frozenset,
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "APPEND": lambda m, _: m.append_items([m.pop()]),
    "APPENDS": lambda m, _: m.append_items(m.pop_to_mark()),
    "SETITEM": _set_item,
    "SETITEMS": lambda m, _: m.set_items(m.pop_to_mark()),
    "ADDITEMS": lambda m, _: m.add_items(m.pop_to_mark()),
    "PUT": _memoize,
    "BINPUT": _memoize,
    "LONG_BINPUT": _memoize,
    "MEMOIZE": _memoize,
    "GET": _recall,
    "BINGET": _recall,
    "LONG_BINGET": _recall,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "INST": _inst,
    "OBJ": _obj,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _newobj_ex,
    "BUILD": lambda m, _: m.build(),
    "PERSID": lambda m, argument: m.stack.append(m.persistent(argument)),
    "BINPERSID": lambda m, _: m.stack.append(m.persistent(m.pop())),
}


def _arguments(machine: _Machine, args: tuple, low: int, high: int, what: str) -> tuple:
    """Return ``args`` if their number is right."""
    if not low <= len(args) <= high:
        raise CheckpointError(
            f"{machine.where}: {what} came with {len(args)} arguments, wanted {low} to {high}"
        )
    return args


def _mapping(machine: _Machine, args: tuple) -> dict:
    """Build an OrderedDict or a similar mapping from nothing, a dict or pairs."""
    items = (
        args[-1] if args and not isinstance(args[-1], GlobalName) and args[-1] is not None else []
    )
    machine.budget.copy_items(len(items) if isinstance(items, (dict, list, tuple)) else 0)
    if isinstance(items, dict):
        return dict(items)
    if not isinstance(items, (list, tuple)) or any(
        not isinstance(p, (list, tuple)) or len(p) != 2 for p in items
    ):
        raise CheckpointError(
            f"{machine.where}: a mapping is built from a {_kind(items)}, wanted pairs"
        )
    return {machine.key(key): value for key, value in items}


def _sequence(kind: type) -> Callable[[_Machine, tuple], Any]:
    """Create a builder of list, tuple, set or frozenset, from nothing or a container of the
    file.
    """

    def build(machine: _Machine, args: tuple) -> Any:
        _arguments(machine, args, 0, 2, kind.__name__)  # deque has a length limit too
        items = args[0] if args else []
        if not isinstance(items, (list, tuple, set, frozenset)):
            raise CheckpointError(
                f"{machine.where}: a {kind.__name__} is built from a {_kind(items)}, wanted a list"
            )
        machine.budget.copy_items(len(items))
        machine.budget.take_steps(SET_STEPS)
        return (
            kind(machine.key(item) for item in items) if kind in (set, frozenset) else kind(items)
        )

    return build


def _encode(machine: _Machine, args: tuple) -> bytes:
    """Rebuild ``_codecs.encode(text, "latin1")``, by which Python 2 compatible pickles write
    bytes.
    """
    text, *codec = _arguments(machine, args, 1, 2, "_codecs.encode")
    if not isinstance(text, str) or (codec or ["utf-8"])[0] not in ("latin1", "latin-1", "utf-8"):
        raise UnsafeCheckpointError(
            f"{machine.where}: refused, _codecs.encode with something else than latin1 text"
        )
    machine.budget.copy_bytes(len(text))
    return text.encode((codec or ["utf-8"])[0])


def _bytearray(machine: _Machine, args: tuple) -> bytes:
    """Build a bytearray of given bytes (never of a given length)."""
    _arguments(machine, args, 0, 2, "bytearray")
    content = args[0] if args else b""
    if isinstance(content, str) and len(args) == 2:
        return _encode(machine, args)
    if not isinstance(content, (bytes, bytearray)):
        raise CheckpointError(
            f"{machine.where}: a bytearray is built from a {_kind(content)}, wanted bytes"
        )
    machine.budget.copy_bytes(len(content))
    return bytes(content)


def _numbers(what: str) -> Callable[[_Machine, tuple], Any]:
    """Create a builder that keeps range, slice, complex and object as a record."""

    def build(machine: _Machine, args: tuple) -> Record:
        machine.budget.take_steps(RECORD_STEPS)
        return Record(GlobalName("builtins", what, "class"), _arguments(machine, args, 0, 3, what))

    return build


def _reconstructor(machine: _Machine, args: tuple) -> Any:
    """Rebuild an instance as protocols 0 and 1 write it: (class, base, base's value)."""
    cls, base, value = _arguments(machine, args, 3, 3, "copyreg._reconstructor")
    if not isinstance(base, GlobalName) or base.module != "builtins":
        raise UnsafeCheckpointError(
            f"{machine.where}: refused, copyreg._reconstructor with base {_kind(base)}"
        )
    instance = machine.instance(cls, ())
    if isinstance(value, (dict, list, tuple)):
        machine.budget.copy_items(len(value))
    if isinstance(instance, Record) and isinstance(value, dict):
        instance.dict_items.update(value)
    elif isinstance(instance, Record) and isinstance(value, (list, tuple)):
        instance.list_items.extend(value)
    return instance


def _new(machine: _Machine, args: tuple) -> Any:
    cls, *rest = _arguments(machine, args, 1, 1 << 10, "copyreg.__newobj__")
    return machine.instance(cls, tuple(rest))


def _new_ex(machine: _Machine, args: tuple) -> Any:
    cls, positional, keywords = _arguments(machine, args, 3, 3, "copyreg.__newobj_ex__")
    return machine.instance(cls, positional, keywords)


def _dtype(machine: _Machine, args: tuple) -> DtypeRecord:
    code = _arguments(machine, args, 1, 3, "numpy.dtype")[0]
    code = code.decode("latin-1") if isinstance(code, bytes) else code
    order, rest = (
        (code[0], code[1:])
        if isinstance(code, str) and code[:1] in ("<", ">", "=", "|")
        else ("=", code)
    )
    if not isinstance(rest, str) or not (
        rest[:1] in "biufcSUOVmM" and rest[1:].isdecimal() and len(rest) < 10
    ):
        written = rest[:20] if isinstance(rest, str) else _kind(rest)
        raise CheckpointError(
            f"{machine.where}: the NumPy dtype {written!r} is not one of numbers or text"
        )
    try:
        if rest[0] in "biufc":
            np.dtype(rest)
    except TypeError as error:
        raise CheckpointError(f"{machine.where}: unknown NumPy dtype {str(code)[:40]!r}") from error
    return DtypeRecord(rest, order)


def _numpy_array(_machine: _Machine, _args: tuple) -> ArrayRecord:
    """Build an array whose content comes with its state."""
    return ArrayRecord()


def _numpy_scalar(machine: _Machine, args: tuple) -> ArrayRecord:
    dtype, content = _arguments(machine, args, 2, 2, "numpy scalar")
    if not isinstance(dtype, DtypeRecord):
        raise CheckpointError(f"{machine.where}: a NumPy scalar has the dtype {_kind(dtype)}")
    return ArrayRecord(machine.array(content, dtype, (), False), scalar=True)


def _numpy_buffer(machine: _Machine, args: tuple) -> ArrayRecord:
    content, dtype, shape, order = _arguments(machine, args, 4, 4, "numpy array")
    if not isinstance(dtype, DtypeRecord):
        raise CheckpointError(f"{machine.where}: a NumPy array has the dtype {_kind(dtype)}")
    return ArrayRecord(machine.array(content, dtype, shape, order == "F"))


def _tensor_v1(machine: _Machine, args: tuple) -> TensorRecord:
    storage, offset, shape, stride = _arguments(machine, args, 4, 4, "_rebuild_tensor")
    return machine.tensor(storage, offset, shape, stride)


def _tensor_v2(machine: _Machine, args: tuple) -> TensorRecord:
    storage, offset, shape, stride, *rest = _arguments(machine, args, 6, 7, "_rebuild_tensor_v2")
    _no_bits(machine, rest[2:])
    return machine.tensor(storage, offset, shape, stride)


def _tensor_v3(machine: _Machine, args: tuple) -> TensorRecord:
    storage, offset, shape, stride, _, _, dtype, *rest = _arguments(
        machine, args, 7, 8, "_rebuild_tensor_v3"
    )
    if not isinstance(dtype, GlobalName) or dtype.kind != "dtype":
        raise CheckpointError(
            f"{machine.where}: a tensor has the dtype {_kind(dtype)}, wanted one of float, half, "
            "bfloat16, integers, bool or complex: save it as float32"
        )
    _no_bits(machine, rest)
    return machine.tensor(storage, offset, shape, stride, dtype=dtype.value)


def _no_bits(machine: _Machine, metadata: list) -> None:
    """Refuse tensors marked as conjugated or negated views."""
    if metadata and isinstance(metadata[0], dict) and any(metadata[0].values()):
        raise CheckpointError(
            f"{machine.where}: a tensor is marked {sorted(map(str, metadata[0]))}, "
            "wanted plain numbers: save a clone() of it"
        )


def _parameter(machine: _Machine, args: tuple) -> Any:
    data = _arguments(machine, args, 1, 4, "_rebuild_parameter")[0]
    if not isinstance(data, (TensorRecord, ArrayRecord)):
        raise CheckpointError(
            f"{machine.where}: a parameter holds a {_kind(data)}, wanted a tensor"
        )
    return data


def _from_type(machine: _Machine, args: tuple) -> Any:
    """Rebuild a tensor with Python attributes or of a tensor subclass as a plain tensor."""
    function, _, inner, _ = _arguments(machine, args, 4, 4, "_rebuild_from_type_v2")
    if not isinstance(function, GlobalName) or not function.module.startswith("torch"):
        raise UnsafeCheckpointError(
            f"{machine.where}: refused, a tensor is rebuilt by {_kind(function)}; nothing was run"
        )
    return machine.instance(function, inner)


def _size(machine: _Machine, args: tuple) -> tuple[int, ...]:
    return machine.sizes(_arguments(machine, args, 1, 1, "torch.Size")[0], "torch.Size")


def _device(machine: _Machine, args: tuple) -> str:
    return ":".join(
        str(p) for p in _arguments(machine, args, 1, 2, "torch.device") if isinstance(p, (str, int))
    )


_REBUILD: dict[str, Callable[[_Machine, tuple], Any]] = {
    "builtins.set": _sequence(set),
    "builtins.frozenset": _sequence(frozenset),
    "builtins.list": _sequence(list),
    "builtins.tuple": _sequence(tuple),
    "builtins.dict": _mapping,
    "builtins.bytearray": _bytearray,
    "builtins.complex": _numbers("complex"),
    "builtins.slice": _numbers("slice"),
    "builtins.range": _numbers("range"),
    "builtins.object": _numbers("object"),
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _mapping,
    "collections.Counter": _mapping,
    "collections.deque": _sequence(list),
    "copyreg._reconstructor": _reconstructor,
    "copyreg.__newobj__": _new,
    "copyreg.__newobj_ex__": _new_ex,
    "_codecs.encode": _encode,
    "torch.Size": _size,
    "torch.device": _device,
    "torch._utils._rebuild_tensor": _tensor_v1,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_device_tensor_from_numpy": _parameter,
    "torch._utils._rebuild_xla_tensor": _parameter,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _parameter,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy.core.multiarray._reconstruct": _numpy_array,
    "numpy.core.numeric._frombuffer": _numpy_buffer,
}

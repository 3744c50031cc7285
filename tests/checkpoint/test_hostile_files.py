"""Files that try to run code or exhaust the machine, or are damaged: a clear error and no side
effect.
"""

import copyreg
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.checkpoint.pickle_policy import resolve_global
from mindyolo_ext.checkpoint.reader import read_checkpoint
from mindyolo_ext.checkpoint.torch_writer import write_torch_checkpoint
from mindyolo_ext.errors import CheckpointError, UnsafeCheckpointError

DATA = Path(__file__).parent / "data"
STORAGE = (
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(number(value) for value in values) + b"t"


def tensor(
    shape: bytes, stride: bytes, offset: bytes = number(0), storage: bytes = STORAGE
) -> bytes:
    """A pickle {"w": tensor}; storage "0" has four float32."""
    return (
        b"\x80\x02}"
        + text("w")
        + b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + offset
        + shape
        + stride
        + b"\x89}tRs."
    )


def torch_zip(path: Path, content: bytes, entries: dict[str, bytes] | None = None) -> Path:
    """A zip checkpoint with this data.pkl and four float32 as storage "0"."""
    entries = {"data/0": np.ones(4, np.float32).tobytes()} if entries is None else entries
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for name, part in entries.items():
            archive.writestr(f"archive/{name}", part)
        archive.writestr("archive/version", b"3\n")
    return path


def legacy(path: Path, content: bytes) -> Path:
    """A checkpoint in the older format with this object."""
    head = (
        pickle.dumps(0x1950A86A20F9469CFC6C, 2)
        + pickle.dumps(1001, 2)
        + pickle.dumps({"little_endian": True}, 2)
    )
    path.write_bytes(head + content + pickle.dumps([], 2))
    return path


def attacks(sentinel: Path) -> dict[str, bytes]:
    """Pickles that create ``sentinel`` when an ordinary unpickler reads them."""
    touch, code = f"touch {sentinel}", f"open({str(sentinel)!r}, 'w').close()"
    popen = b"csubprocess\nPopen\n"
    inner = b"cos\nsystem\n(" + text(touch) + b"tR."
    argv = b"(](" + text("touch") + text(str(sentinel)) + b"et"
    return {
        "os.system": b"cos\nsystem\n(" + text(touch) + b"tR.",
        "posix.system": b"\x80\x02cposix\nsystem\n(" + text(touch) + b"tR.",
        "subprocess.Popen": b"\x80\x02" + popen + argv + b"R.",
        "builtins.eval": b"\x80\x02cbuiltins\neval\n(" + text(code) + b"tR.",
        "builtins.eval of Python 2": b"\x80\x02c__builtin__\neval\n(" + text(code) + b"tR.",
        "builtins.exec": b"\x80\x02cbuiltins\nexec\n(" + text(code) + b"tR.",
        "builtins.__import__": b"\x80\x02cbuiltins\ngetattr\n(cbuiltins\n__import__\n("
        + text("os")
        + b"tR"
        + text("system")
        + b"tR("
        + text(touch)
        + b"tR.",
        "importlib": b"\x80\x02cbuiltins\ngetattr\n(cimportlib\nimport_module\n("
        + text("os")
        + b"tR"
        + text("system")
        + b"tR("
        + text(touch)
        + b"tR.",
        "STACK_GLOBAL": b"\x80\x04" + text("os") + text("system") + b"\x93(" + text(touch) + b"tR.",
        "STACK_GLOBAL with a dotted name": b"\x80\x04"
        + text("shutil")
        + text("os.system")
        + b"\x93("
        + text(touch)
        + b"tR.",
        "INST": b"(" + text(touch) + b"ios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + text(touch) + b"o.",
        "NEWOBJ then INST": b"\x80\x02cbuiltins\nobject\n)\x810("
        + text(code)
        + b"ibuiltins\nexec\n.",
        "functools.partial": b"\x80\x02cfunctools\npartial\n(cos\nsystem\n"
        + text(touch)
        + b"tR)R.",
        "operator.methodcaller": b"\x80\x02coperator\nmethodcaller\n("
        + text("system")
        + text(touch)
        + b"tR(cimportlib\nimport_module\n("
        + text("os")
        + b"tRtR.",
        "BUILD with __setstate__": b"\x80\x02ctypes\nSimpleNamespace\n)R}"
        + text("__setstate__")
        + b"cos\nsystem\nsb"
        + text(touch)
        + b"b.",
        "nested pickle": b"\x80\x03c_pickle\nloads\n(B"
        + struct.pack("<I", len(inner))
        + inner
        + b"tR.",
        "map and list": b"\x80\x02cbuiltins\nlist\n(cbuiltins\nmap\n(cos\nsystem\n]("
        + text(touch)
        + b"etRtR.",
        "copyreg._reconstructor": b"\x80\x02ccopyreg\n__newobj__\n(csubprocess\nPopen\ntR0" + inner,
        "runpy": b"\x80\x02cbuiltins\nexec\n(cbuiltins\ncompile\n("
        + text(code)
        + text("x")
        + text("exec")
        + b"tRtR.",
    }


ATTACKS = sorted(attacks(Path("x")))


@pytest.mark.parametrize("name", ATTACKS)
def test_the_attacks_are_real(tmp_path, name):
    """Each attack works on Python's own unpickler, so the next test can fail."""
    sentinel = tmp_path / "sentinel"
    try:
        result = pickle.loads(attacks(sentinel)[name])
        if hasattr(result, "wait"):
            result.wait()
    except Exception:  # some fail after the damage is done
        pass
    assert sentinel.exists()


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("write", [torch_zip, legacy])
def test_no_code_runs(tmp_path, name, write):
    sentinel = tmp_path / "sentinel"
    path = write(tmp_path / "x.pth", attacks(sentinel)[name])
    with pytest.raises(UnsafeCheckpointError, match=r"x\.pth.*refused") as caught:
        read_checkpoint(path)
    assert "nothing was run" in str(caught.value)
    assert not sentinel.exists()


def test_the_attack_may_stand_anywhere_in_a_good_file(tmp_path):
    """Including below the optimizer, which is otherwise skipped, and in the arguments of a rebuilt
    tensor.
    """
    sentinel = tmp_path / "sentinel"
    attack = b"cos\nsystem\n(" + text(f"touch {sentinel}") + b"tR"
    good = tensor(numbers(4), numbers(1))[2:-1]
    for content in (
        b"\x80\x02}" + text("model") + good + b"s" + text("optimizer") + attack + b"s.",
        b"\x80\x02}"
        + text("w")
        + b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nctorch\nTensor\n("
        + text(f"touch {sentinel}")
        + b"t}tRs.",
        tensor(numbers(4), numbers(1), storage=attack),
    ):
        with pytest.raises(UnsafeCheckpointError, match=r"os\.system"):
            read_checkpoint(torch_zip(tmp_path / "x.pth", content))
        assert not sentinel.exists()


@pytest.mark.parametrize(
    "qualified",
    [
        "torch.storage._load_from_bytes",
        "torch.hub.load",
        "torch.jit.load",
        "torch.load",
        "torch.serialization.load",
        "torch._utils._import_dotted_name",
        "torch.fx.graph_module.reduce_graph_module",
        "torch.package.PackageImporter",
        "numpy.load",
        "numpy.save",
        "numpy.core._internal.eval",
        "numpy.f2py.compile",
        "numpy.testing.runstring",
        "os.popen",
        "nt.system",
        "sys.exit",
        "sys.modules",
        "ctypes.CDLL",
        "runpy.run_path",
        "pty.spawn",
        "code.interact",
        "webbrowser.open",
        "shutil.rmtree",
        "socket.socket",
        "marshal.loads",
        "types.FunctionType",
        "types.CodeType",
        "operator.attrgetter",
        "codecs.decode",
        "_codecs.decode",
        "pickle.loads",
        "builtins.open",
        "builtins.getattr",
        "builtins.globals",
        "builtins.type",
        "builtins.map",
        "io.open",
        "pathlib.Path.write_text",
        "logging.config.dictConfig",
        "multiprocessing.Process",
        "threading.Thread",
        "urllib.request.urlopen",
        "commands.getoutput",
        "zipfile.ZipFile",
        "cloudpickle.cloudpickle._make_function",
        "dill._dill._create_function",
        "torch.nn.Module.__init__",
        "models.yolo.Model.__globals__",
        "copyreg.__reduce_ex__",
        "copyreg.add_extension",
        "pip.main",
    ],
)
def test_names_that_weights_do_not_need(qualified):
    module, _, name = qualified.rpartition(".")
    with pytest.raises(
        UnsafeCheckpointError, match=f"x.pth: refused, the file asks for '{qualified}'"
    ):
        resolve_global(module, name, where="x.pth")


@pytest.mark.parametrize("name", ["a b", "a;b", "a..b", "", "a/b", "lambda x: x"])
def test_what_is_no_name(name):
    with pytest.raises(UnsafeCheckpointError, match="is not a name of a class"):
        resolve_global("models.yolo", name, where="x.pth")


@pytest.mark.parametrize(
    "qualified",
    [
        "models.yolo.Model",
        "yolov6.layers.common.Conv",
        "__main__.Net",
        "torch.nn.modules.conv.Conv2d",
        "argparse.Namespace",
        "pathlib.PosixPath",
    ],
)
def test_classes_of_models_are_inert(qualified):
    module, _, name = qualified.rpartition(".")
    assert resolve_global(module, name, where="x.pth").kind == "class"


def test_functions_may_be_mentioned_but_not_called(tmp_path):
    mention = (
        b"\x80\x02}"
        + text("state_dict")
        + tensor(numbers(4), numbers(1))[2:-1]
        + b"s"
        + text("act")
        + b"ctorch.nn.functional\nrelu\n"
    )
    assert read_checkpoint(torch_zip(tmp_path / "x.pth", mention + b"s.")).extras == {
        "act": "torch.nn.functional.relu"
    }
    with pytest.raises(UnsafeCheckpointError, match=r"tries to call 'torch\.nn\.functional\.relu'"):
        read_checkpoint(torch_zip(tmp_path / "x.pth", mention + b")Rs."))


BOUND = b"cbuiltins\ngetattr\n(cmodels.yolo\nModel\n)\x81" + text("forward_fuse") + b"tR"


def test_a_bound_method_of_an_inert_object_is_a_name(tmp_path):
    """The ``forward`` of a fused layer is pickled this way; calling it is refused."""
    weights = (
        b"\x80\x02}"
        + text("state_dict")
        + tensor(numbers(4), numbers(1))[2:-1]
        + b"s"
        + text("forward")
    )
    path = torch_zip(tmp_path / "x.pth", weights + BOUND + b"s.")
    assert read_checkpoint(path).extras == {"forward": "models.yolo.Model.forward_fuse"}
    with pytest.raises(
        UnsafeCheckpointError,
        match=r"tries to call 'models\.yolo\.Model\.forward_fuse'; nothing was",
    ):
        read_checkpoint(torch_zip(tmp_path / "x.pth", weights + BOUND + b")Rs."))


@pytest.mark.parametrize(
    "asked",
    [
        b"cbuiltins\ngetattr\n",
        b"c__builtin__\ngetattr\n",
        BOUND.replace(b"Model\n)\x81", b"Model\n"),  # of a class, not of an object
        BOUND.replace(b"cmodels.yolo\nModel\n)\x81", b"}"),
        BOUND.replace(text("forward_fuse"), text("__class__")),
        BOUND.replace(text("forward_fuse"), text("_apply")),
        BOUND.replace(text("forward_fuse"), text("a.b")),
        BOUND.replace(text("forward_fuse"), b"K\x01"),
        BOUND.replace(b"tR", b"NtR"),
        b"(ibuiltins\ngetattr\n",
    ],
)
def test_nothing_else_is_looked_up(tmp_path, asked):
    weights = (
        b"\x80\x02}" + text("state_dict") + tensor(numbers(4), numbers(1))[2:-1] + b"s" + text("x")
    )
    with pytest.raises(
        UnsafeCheckpointError,
        match=r"refused, the file asks for 'builtins\.getattr'.*nothing was run",
    ):
        read_checkpoint(torch_zip(tmp_path / "x.pth", weights + asked + b"s."))


@pytest.mark.parametrize("opcode", [b"\x82\xf0", b"\x83\xf0\x00", b"\x84\xf0\x00\x00\x00"])
def test_extension_codes(tmp_path, opcode):
    """An extension code may stand for anything that a library registered in this process."""
    copyreg.add_extension("os", "system", 0xF0)
    try:
        sentinel = tmp_path / "sentinel"
        attack = b"\x80\x02" + opcode + b"(" + text(f"touch {sentinel}") + b"tR."
        pickle.loads(attack)
        assert sentinel.exists()
        sentinel.unlink()
        with pytest.raises(UnsafeCheckpointError, match="an extension code"):
            read_checkpoint(torch_zip(tmp_path / "x.pth", attack))
        assert not sentinel.exists()
    finally:
        copyreg.remove_extension("os", "system", 0xF0)


@pytest.mark.parametrize(
    "content",
    [
        b"P0\n.",  # text form
        b"\x80\x02cos\nsystem\nQ.",  # a function as the id
        b"\x80\x02(" + text("module") + b"cmodels\nNet\nNNtQ.",  # a form of the older format
        b"\x80\x02(" + text("storage") + b"tQ.",
        b"\x80\x02(" + text("file") + text("/etc/passwd") + text("0") + text("cpu") + b"K\x04tQ.",
        b"\x80\x02]Q.",
    ],
)
def test_persistent_ids(tmp_path, content):
    with pytest.raises(UnsafeCheckpointError, match="refused"):
        read_checkpoint(torch_zip(tmp_path / "x.pth", content))


@pytest.mark.parametrize(
    "content",
    [
        b"cbuiltins\nlist\n}b.",  # BUILD on a name
        b"ctorch._utils\n_rebuild_tensor_v2\n}" + text("__code__") + b"Nsb.",
        b"K\x01N}" + text("a") + b"K\x02s\x86b.",
    ],
)
def test_state_for_what_has_none(tmp_path, content):
    with pytest.raises(UnsafeCheckpointError, match="tries to change"):
        read_checkpoint(torch_zip(tmp_path / "x.pth", b"\x80\x02" + content))


def test_a_storage_that_holds_a_pickle_is_only_numbers(tmp_path):
    sentinel = tmp_path / "sentinel"
    attack = (b"cos\nsystem\n(" + text(f"touch {sentinel}") + b"tR.").ljust(256, b"\0")
    storage = STORAGE.replace(b"K\x04", b"K\x40")
    path = torch_zip(
        tmp_path / "x.pth", tensor(numbers(64), numbers(1), storage=storage), {"data/0": attack}
    )
    assert read_checkpoint(path).tensors["w"].tobytes() == attack
    assert not sentinel.exists()


def test_torchscript_programs(tmp_path):
    path = torch_zip(
        tmp_path / "x.pt", b"\x80\x02}.", {"constants.pkl": b"\x80\x02).", "code/__torch__.py": b""}
    )
    with pytest.raises(UnsafeCheckpointError, match="is a TorchScript program"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tensor(numbers(5), numbers(1)), "needs 5 elements, storage '0' has 4"),
        (tensor(numbers(4), numbers(1), number(1)), "needs 5 elements, storage '0' has 4"),
        (tensor(numbers(2, 2), numbers(3, 1)), "needs 5 elements"),
        (tensor(numbers(1 << 40), numbers(0)), "repeats the 4 elements"),
        (tensor(numbers(4), numbers(-1), number(3)), "whole numbers >= 0"),
        (tensor(numbers(-4), numbers(1)), "whole numbers >= 0"),
        (tensor(numbers(4), numbers(1), number(-1)), "offset -1"),
        (tensor(numbers(4), numbers(1, 1)), "one stride per axis"),
        (tensor(numbers(*[1] * 33), numbers(*[1] * 33)), "at most 32"),
        (tensor(text("ab"), numbers(1)), "whole numbers >= 0"),
        (
            tensor(numbers(4), numbers(1), storage=STORAGE.replace(b"K\x04", b"K\x05")),
            "5 x float32 = 20 bytes, its entry holds 16",
        ),
        (
            tensor(numbers(4), numbers(1), storage=STORAGE.replace(b"Float", b"Half")),
            "4 x float16 = 8 bytes, its entry holds 16",
        ),
        (
            tensor(numbers(4), numbers(1), storage=STORAGE.replace(b"K\x04", number(1 << 60))),
            "the limit is",
        ),
        (
            tensor(numbers(4), numbers(1), storage=STORAGE.replace(b"K\x04", number(-4))),
            "whole number >= 0",
        ),
        (
            tensor(
                numbers(4), numbers(1), storage=STORAGE.replace(b"ctorch\nFloat", b"ctorch\nQInt8")
            ),
            "refused, the file asks",
        ),
        (
            tensor(
                numbers(4),
                numbers(1),
                storage=STORAGE.replace(b"ctorch\nFloatStorage", b"cmodels\nNet"),
            ),
            "has the type",
        ),
        (
            tensor(
                numbers(4),
                numbers(1),
                storage=STORAGE.replace(b"\x01\x00\x00\x000", b"\x01\x00\x00\x009"),
            ),
            "is missing",
        ),
        (tensor(numbers(4), numbers(1), storage=b"K\x04"), "rests on a int"),
        (
            tensor(numbers(4), numbers(1))[:-1]
            + text("v")
            + STORAGE.replace(b"K\x04", b"K\x02")
            + b"s.",
            "is declared as",
        ),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, content, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(torch_zip(tmp_path / "x.pth", content))
    assert "x.pth" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02K\x01" + b"2\x86" * 40 + b".", "holds a tuple"),
        (b"\x80\x02}q\x00" + text("self") + b"h\x00s.", "no weights among its entries"),
        (b"(" * 100 + b".", "leaves 100 objects"),
        (b"\x80\x02" + b"]" * 100000 + b"a" * 99999 + b".", "holds a list"),
        (b"\x80\x02]r\xff\xff\xff\xff.", "holds a list"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.", "broken"),
        (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"x.", "broken"),
        (
            b"\x80\x02cbuiltins\nbytearray\n(" + number(1 << 40) + b"tR.",
            "built from a int, wanted bytes",
        ),
        (b"\x80\x02}](K\x01K\x02es.", "broken"),
        (b"\x80\x02h\x05.", "broken"),
        (b"0.", "broken"),
        (b"\x80\x02.", "leaves 0 objects"),
        (b"\x80\x02K\x01K\x02.", "leaves 2 objects"),
        (b"\x80\x02cnumpy\ndtype\n(" + text("f4") + b"tR.", "holds a DtypeRecord"),
        (b"\x80\x02cnumpy\ndtype\n(" + text("f99999999999") + b"tR.", "dtype"),
        (
            b"\x80\x03cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n("
            + text("f8")
            + b"tRC\x04abcdtR.",
            "holds 4 bytes, wanted 8",
        ),
    ],
)
def test_broken_or_endless_pickles(tmp_path, content, message):
    for write in (torch_zip, legacy):
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(write(tmp_path / "x.pth", content))


def doubling(levels: int, leaf: bytes) -> bytes:
    """A dict whose two entries are the same dict, and so on: 2 ** levels paths in a few hundred
    bytes.
    """
    content = leaf
    for _ in range(levels):
        content = b"}(" + text("a") + content + b"q\x00" + text("b") + b"h\x00u"
    return content


def test_shared_containers_do_not_multiply(tmp_path):
    leaf = tensor(numbers(4), numbers(1))[2:-1]
    with pytest.raises(CheckpointError, match="more than 20000 tensors"):
        read_checkpoint(
            torch_zip(
                tmp_path / "x.pth", b"\x80\x02}" + text("model") + doubling(40, leaf) + b"s."
            ),
            entry="model",
        )
    extras = b"\x80\x02}(" + text("model") + leaf + text("more") + doubling(40, b"}") + b"u."
    assert read_checkpoint(torch_zip(tmp_path / "y.pth", extras)).tensors["w"].shape == (4,)


def test_copies_are_counted(tmp_path):
    """A few thousand bytes copy one list of 200,000 items 1,000 times."""
    content = (
        b"\x80\x02]("
        + b"K\x01" * 200_000
        + b"eq\x00cbuiltins\nlist\nq\x010]"
        + b"h\x01h\x00\x85Ra" * 1000
        + b"."
    )
    with pytest.raises(CheckpointError, match="copies more than"):
        read_checkpoint(torch_zip(tmp_path / "x.pth", content))


@pytest.mark.parametrize(
    "name", ["../evil", "archive/../../evil", "/etc/evil", "C:/evil", "..\\evil", "\\evil"]
)
def test_names_that_leave_the_archive(tmp_path, name):
    path = torch_zip(tmp_path / "x.pth", tensor(numbers(4), numbers(1)))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(UnsafeCheckpointError, match="wanted names inside one folder"):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name(tmp_path):
    path = torch_zip(tmp_path / "x.pth", tensor(numbers(4), numbers(1)))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    with pytest.raises(UnsafeCheckpointError, match=r"two entries called 'archive/data\.pkl'"):
        read_checkpoint(path)


def test_two_roots(tmp_path):
    path = torch_zip(tmp_path / "x.pth", tensor(numbers(4), numbers(1)))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/data.pkl", b"\x80\x02}.")
    with pytest.raises(CheckpointError, match="2 entries called <folder>/data.pkl"):
        read_checkpoint(path)


def patched(path: Path, offset: int, value: bytes) -> Path:
    """The archive with ``value`` at ``offset`` of the central directory's record of the storage."""
    content = bytearray(path.read_bytes())
    record = content.rindex(b"PK\x01\x02", 0, content.rindex(b"archive/data/0"))
    content[record + offset : record + offset + len(value)] = value
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (8, b"\x01\x00", "is encrypted"),
        (10, b"\x0e\x00", "uses compression 14"),
        (24, struct.pack("<I", 1 << 30), "declares 1073741824 bytes in 16 of the file"),
        (20, struct.pack("<II", 1 << 30, 1 << 30), "declares 1073741960 bytes packed"),
        (16, b"\xde\xad\xbe\xef", "is damaged"),
        (42, struct.pack("<I", 1), "is damaged"),
    ],
)
def test_archives_that_lie(tmp_path, offset, value, message):
    path = patched(torch_zip(tmp_path / "x.pth", tensor(numbers(4), numbers(1))), offset, value)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_a_real_zip_bomb(tmp_path):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tensor(numbers(4), numbers(1)))
        archive.writestr("archive/data/0", bytes(1 << 24))
    assert path.stat().st_size < 1 << 16
    with pytest.raises(UnsafeCheckpointError, match="declares 16777216 bytes in"):
        read_checkpoint(path)


def test_damaged_compressed_entries(tmp_path):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tensor(numbers(4), numbers(1)))
        archive.writestr("archive/data/0", np.ones(4, np.float32).tobytes())
    assert read_checkpoint(path).tensors["w"].tolist() == [1, 1, 1, 1]
    content = path.read_bytes()
    start = content.index(b"archive/data.pkl") + len(b"archive/data.pkl")
    path.write_bytes(content[:start] + b"\xff" * 20 + content[start + 20 :])
    with pytest.raises(CheckpointError, match=r"entry 'archive/data\.pkl' is damaged"):
        read_checkpoint(path)


def test_max_bytes(tmp_path):
    write_torch_checkpoint(tmp_path / "x.pth", {"w": np.zeros(1000, np.float32)})
    read_checkpoint(tmp_path / "x.pth", max_bytes=10_000)
    with pytest.raises(CheckpointError, match="the limit is 3000"):
        read_checkpoint(tmp_path / "x.pth", max_bytes=3000)
    with pytest.raises(CheckpointError, match="the limit is 2000"):
        read_checkpoint(DATA / "legacy.pth", max_bytes=2000)


@pytest.mark.parametrize("file", ["zip.pth", "legacy.pth", "modules.pt"])
def test_files_that_end_too_early(tmp_path, file):
    content = (DATA / file).read_bytes()
    for length in (1, 2, 5, 30, 100, len(content) // 2, len(content) - 30, len(content) - 1):
        path = tmp_path / file
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=file):
            read_checkpoint(path)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("file", ["zip.pth", "legacy.pth"])
def test_damaged_bytes_never_surprise(tmp_path, file):
    """Whichever single byte is wrong, the result is the numbers or a CheckpointError."""
    content = (DATA / file).read_bytes()
    errors = 0
    for position in range(0, len(content), 7):
        path = tmp_path / file
        path.write_bytes(
            content[:position] + bytes([content[position] ^ 0x15]) + content[position + 1 :]
        )
        try:
            read_checkpoint(path)
        except CheckpointError:
            errors += 1
    assert errors > 50


def test_older_format_with_missing_or_wrong_storages(tmp_path):
    content = (DATA / "legacy.pth").read_bytes()
    keys = content.rindex(b"\x80\x02]")
    path = tmp_path / "x.pth"
    path.write_bytes(content[:keys] + pickle.dumps([], 2))
    with pytest.raises(CheckpointError, match="are declared but missing from the file"):
        read_checkpoint(path)
    path.write_bytes(content[:keys] + pickle.dumps(["12345"], 2))
    with pytest.raises(CheckpointError, match="is listed but no tensor declares it"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "is a web page"),
        (b"\n\n  <html>quota exceeded", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "run git lfs pull"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "is a PNG image"),
        (b"7767517\n88 99\nInput data", "is an ncnn network description"),
        (b"PK\x05\x06" + bytes(18), "empty or split zip archive"),
        (b"PK\x03\x04" + bytes(60), "ends too early or is broken"),
        (pickle.dumps({"a": 1}, 2), "does not begin with PyTorch's magic number"),
        (pickle.dumps([1.0] * 100, 4), "does not begin with PyTorch's magic number"),
    ],
)
def test_files_of_another_kind(tmp_path, content, message):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)


def test_absent_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file, wanted a checkpoint"):
        read_checkpoint(tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="is not a file"):
        read_checkpoint(tmp_path)


def test_a_zip_of_pictures(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("photo.jpg", b"x")
    with pytest.raises(CheckpointError, match="0 entries called <folder>/data.pkl"):
        read_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02}" + text("epoch") + b"K\x01s.", "no weights among its entries"),
        (b"\x80\x02}.", "no weights among its entries"),
        (b"\x80\x02]K\x01a.", "holds a list, wanted a state dict"),
        (tensor(numbers(4), numbers(1)).replace(text("w"), b"K\x01"), "no weights|wanted text"),
        (
            b"\x80\x02}("
            + text("a")
            + tensor(numbers(4), numbers(1))[2:-1]
            + text("b")
            + tensor(numbers(4), numbers(1))[2:-1]
            + b"u.",
            "several entries hold weights: a, b; select one",
        ),
    ],
)
def test_files_without_weights(tmp_path, content, message):
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(torch_zip(tmp_path / "x.pth", content))


def test_many_tensors_that_repeat_one_number(tmp_path):
    """300 tensors of a million numbers each share a storage of 16 bytes."""
    one = tensor(numbers(1 << 20), numbers(0))[len(b"\x80\x02}" + text("w")) : -2]
    content = b"\x80\x02}(" + b"".join(text(f"t{i}") + one for i in range(300)) + b"u."
    with pytest.raises(CheckpointError, match="the weights expand 16 bytes to 1258291200"):
        read_checkpoint(torch_zip(tmp_path / "x.pth", content))


def tar_head(name: bytes, size: bytes) -> bytes:
    """A header with this size field and a sound checksum."""
    head = bytearray(tarfile.TarInfo(name.decode()).tobuf(tarfile.GNU_FORMAT))
    head[124:136] = size
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tar_head(b"pickle", b"%011o\0" % 0) * 20_000, "more than 10000 parts"),
        (
            tar_head(b"pickle", b"%011o\0" % 0)
            + tar_head(b"pickle", (-512).to_bytes(12, "big", signed=True)),
            "wanted octal digits",
        ),
        (tar_head(b"pickle", b"%011o\0" % (1 << 32)), "a part of 4294967296 bytes, 0 are left"),
        (tar_head(b"pickle", b" " * 12), "wanted octal digits"),
        (tar_head(b"pickle", b"%011o\0" % 0).replace(b"pickle", b"tickle"), "checksum .* differs"),
        (tar_head(b"pickle", b"%011o\0" % 0), "0 parts called 'storages'"),
    ],
)
def test_tar_files_that_lead_astray(tmp_path, content, message):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)

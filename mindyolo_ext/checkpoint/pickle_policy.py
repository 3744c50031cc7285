"""Decide which names a checkpoint may mention, and what stands in for them.

There are four cases: rebuilt by our own code (``safe``), an inert class, a mere mention, or
refused. Nothing is ever imported or called on behalf of the file, so safety does not depend on the
refusals; they tell the user that a file contains more than weights.
"""

import _compat_pickle
import re
import sys

from mindyolo_ext.checkpoint.records import GlobalName
from mindyolo_ext.errors import UnsafeCheckpointError, shown

TORCH_DTYPES = {
    "float64": "float64",
    "double": "float64",
    "float32": "float32",
    "float": "float32",
    "float16": "float16",
    "half": "float16",
    "bfloat16": "bfloat16",
    "int64": "int64",
    "long": "int64",
    "int32": "int32",
    "int": "int32",
    "int16": "int16",
    "short": "int16",
    "int8": "int8",
    "uint8": "uint8",
    "uint16": "uint16",
    "uint32": "uint32",
    "uint64": "uint64",
    "bool": "bool",
    "complex64": "complex64",
    "cfloat": "complex64",
    "complex128": "complex128",
    "cdouble": "complex128",
}
STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": None,
    "_UntypedStorage": None,
    "TypedStorage": None,
    "_TypedStorage": None,
}
SAFE = {
    "builtins": {
        "set",
        "frozenset",
        "bytearray",
        "complex",
        "slice",
        "range",
        "list",
        "dict",
        "tuple",
        "object",
    },
    "collections": {"OrderedDict", "defaultdict", "Counter", "deque"},
    "copyreg": {"_reconstructor", "__newobj__", "__newobj_ex__"},
    "_codecs": {"encode"},
    "torch": {"Size", "device"},
    "torch._utils": {
        "_rebuild_tensor",
        "_rebuild_tensor_v2",
        "_rebuild_tensor_v3",
        "_rebuild_parameter",
        "_rebuild_parameter_with_state",
        "_rebuild_device_tensor_from_numpy",
        "_rebuild_xla_tensor",
        "_rebuild_device_tensor_from_cpu_tensor",
    },
    "torch._tensor": {"_rebuild_from_type_v2"},
    "numpy": {"dtype"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.numeric": {"_frombuffer"},
}
INERT_CLASSES = {
    "argparse": {"Namespace"},
    "types": {"SimpleNamespace"},
    "pathlib": {"Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"},
    "pathlib._local": {
        "Path",
        "PosixPath",
        "WindowsPath",
        "PurePath",
        "PurePosixPath",
        "PureWindowsPath",
    },
    "datetime": {"datetime", "date", "time", "timedelta", "timezone"},
    "uuid": {"UUID"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "functools": {"partial"},
    "collections": {"UserDict", "UserList", "UserString"},
    "numpy.random": {"RandomState", "Generator"},
    "numpy.random._pickle": {"__randomstate_ctor", "__generator_ctor", "__bit_generator_ctor"},
    "numpy.random._mt19937": {"MT19937"},
    "numpy.random._pcg64": {"PCG64"},
    "numpy.random.bit_generator": {"SeedSequence", "__pyx_unpickle_SeedSequence"},
    "random": {"Random"},
    "torch._C": {"Generator"},
    "torch": {"_TorchCompileInductorWrapper"},
    # tensors without plain numbers: kept as names only, and left out
    "torch._utils": {
        "_rebuild_sparse_tensor",
        "_rebuild_sparse_csr_tensor",
        "_rebuild_qtensor",
        "_rebuild_nested_tensor",
        "_rebuild_meta_tensor_no_storage",
        "_rebuild_wrapper_subclass",
    },
    "torch.serialization": {"_get_layout"},
    "torch.torch_version": {"TorchVersion"},
}
MENTIONS = {
    "builtins": {"int", "float", "str", "bool", "bytes", "NotImplemented", "Ellipsis"},
    "numpy": {"ndarray", "float64", "float32", "float16", "int64", "int32", "bool_"},
    "torch": {
        "Tensor",
        "FloatTensor",
        "LongTensor",
        "HalfTensor",
        "DoubleTensor",
        "IntTensor",
        "ByteTensor",
        "contiguous_format",
        "channels_last",
        "preserve_format",
        "strided",
        "sparse_coo",
        "per_tensor_affine",
        "per_channel_affine",
        "float8_e4m3fn",
        "float8_e5m2",
    },
    "torch._tensor": {"Tensor"},
    "torch.tensor": {"Tensor"},
}
INERT_TORCH = (
    "torch.nn",
    "torch.optim",
    "torch.cuda.amp",
    "torch.amp",
    "torch.ao",
    "torch.quantization",
    "torch.distributed",
    "torch.utils.data",
    "torch._dynamo",
)
HINTS = {  # prefix of a refused name -> what it is, and what to do
    "torch.fx.": "a program traced by torch.fx: save its state_dict() instead",
    "torch.storage._load_from_bytes": "tensors written by pickle.dump: save them with torch.save",
    "torch.Q": "quantized weights: take those from before they were quantized",
}
CODE_CARRIERS = {
    "dill",
    "cloudpickle",
    "joblib",
    "pip",
    "setuptools",
    "pkg_resources",
    "IPython",
    "numba",
}
FORMER_STDLIB = {
    "commands",
    "popen2",
    "urllib2",
    "cPickle",
    "StringIO",
    "cStringIO",
    "exceptions",
    "imp",
    "distutils",
    "asyncore",
    "asynchat",
    "pipes",
    "smtpd",
    "cgi",
    "telnetlib",
    "os2",
    "ce",
    "riscos",
}
MODERN = {"torch.tensor": "torch._tensor"}
_IDENTIFIERS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*\Z")


def resolve_global(module: str, name: str, *, where: str) -> GlobalName:
    """Return the stand-in for ``module.name``.

    Raises: UnsafeCheckpointError for a name that does not belong in a file of weights.
    """
    original = f"{module}.{name}"
    module, name = _in_python_3(module, name)
    if module == "numpy._core" or module.startswith("numpy._core."):
        module = "numpy.core" + module[len("numpy._core") :]
    if not _IDENTIFIERS.match(module) or not _IDENTIFIERS.match(name):
        raise UnsafeCheckpointError(f"{where}: {shown(original)!r} is not a name of a class")
    if any(part.startswith("__") for part in name.split(".")) and not any(
        name in table.get(module, ()) for table in (SAFE, INERT_CLASSES)
    ):
        raise _refusal(original, where)
    special = _torch_value(module, name)
    if special is not None:
        return special
    for kind, table in (("safe", SAFE), ("class", INERT_CLASSES), ("mention", MENTIONS)):
        if name in table.get(module, ()):
            return GlobalName(module, name, kind)
    root = module.split(".")[0]
    if root == "torch" and any(
        module == prefix or module.startswith(prefix + ".") for prefix in INERT_TORCH
    ):
        if module == "torch.nn.functional" or not name.lstrip("_")[:1].isupper():
            return GlobalName(module, name, "mention")
        return GlobalName(module, name, "class")
    if (
        root in ("torch", "numpy")
        or root in sys.stdlib_module_names
        or root in CODE_CARRIERS | FORMER_STDLIB
    ):
        raise _refusal(original, where)
    if root == "__torch__":
        raise UnsafeCheckpointError(
            f"{where}: is a TorchScript program ({original}), wanted weights saved with "
            "torch.save: run state_dict() on the loaded program and save that"
        )
    return GlobalName(module, name, "class")


def _in_python_3(module: str, name: str) -> tuple[str, str]:
    """Return the Python 3 name of what Python 2, and pickle protocols up to 2, name differently."""
    module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
    module = _compat_pickle.IMPORT_MAPPING.get(module, module)
    if module == "torch._utils" and name.startswith("torch."):  # memory formats
        module, name = "torch", name.removeprefix("torch.")
    return MODERN.get(module, module), name


def _torch_value(module: str, name: str) -> GlobalName | None:
    """Return the storage type or dtype called ``module.name``, if there is one."""
    if module in ("torch", "torch.cuda", "torch.storage") and name in STORAGE_DTYPES:
        return GlobalName(module, name, "storage", STORAGE_DTYPES[name])
    if module == "torch" and name in TORCH_DTYPES:
        return GlobalName(module, name, "dtype", TORCH_DTYPES[name])
    return None


def _refusal(qualified: str, where: str) -> UnsafeCheckpointError:
    hint = next((text for begin, text in HINTS.items() if qualified.startswith(begin)), "")
    return UnsafeCheckpointError(
        f"{where}: refused, the file asks for {shown(qualified)!r}, which weights do not need"
        f"{f' ({hint})' if hint else ''}; nothing was run"
    )

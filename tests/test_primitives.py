"""Every primitive of the compiled training graphs, backward passes and updates included, has a
kernel on Ascend, GPU and CPU, and none is used beyond a documented limit.

``tests/primitives.json`` lists the primitives with the types of their tensors, per graph: the
smallest variant of each family in mixed precision, with clipping, accumulation, moving average and
dynamic loss scale, as MindSpore has it when the compiler has validated it and before a backend
rewrites it for its device. ``--all-cases`` compiles the graphs again and compares; ``python
tests/compiled_graphs.py`` rewrites the file. AllReduce is in ``test_architecture.py``.

What decides, for each device, in MindSpore's wheel:

- Ascend: the primitive's own docstring; else an adapter to an operator of CANN (``OpAdapter<...>``
  in ``libmindspore_ascend_res_manager.so`` or ``libmindspore_graph_ir.so``), an aclnn kernel
  (``libmindspore_ops_ascend.so``), or a kernel of the AI CPU (``config/op_info.config``).
- GPU: the docstring; else a kernel's class in ``libmindspore_gpu.so.11.6``.
- CPU: the graphs are those of the CPU; the tests of the families run them.
- ``EXPANDED``: the backend that all devices share (``libmindspore_backend_common.so``) replaces
  these where there is no kernel. The CPU has none for ``SplitWithSize``, and runs it.

A symbol says that there is a kernel of that name, not that it takes these types: that shows on the
device alone.
"""

import functools
import json
import mmap
import re
from pathlib import Path

import pytest
from compiled_graphs import CASES, DYNAMIC, STORED, compiled
from source_rules import documented_platforms

from mindyolo_ext.models.registry import families

pytestmark = pytest.mark.needs_mindspore
FOUND: dict[str, dict[str, list[str]]] = json.loads(STORED.read_text(encoding="utf-8"))
# These order, group or pass on; the compiler or the runtime removes them, or they move no data
NO_KERNEL = {
    "Depend": "order of side effects",
    "Load": "read of a parameter",
    "MakeTuple": "grouping",
    "TupleGetItem": "grouping",
    "UpdateState": "order of side effects",
    "make_list": "grouping",
}
# Names in the plug-ins that differ from the primitive's, some of kernels for several primitives
ASCEND_NAMES = {"ReLU6Grad": "Relu6Grad"}
GPU_NAMES = {
    "AtanGrad": "ElementwiseOps",
    "Conv2DBackpropFilter": "Conv2dFilterGrad",
    "Conv2DBackpropInput": "Conv2dInputGrad",
    "MaxPoolGrad": "PoolingGrad",
    "ReLU6Grad": "ActivationGrad",
}
# MindSpore's backend replaces these by others where a device has no kernel, as on a CPU
EXPANDED = ("SplitWithSize", "ZerosLikeExt")
# Limits that MindSpore documents: the primitives that graphs may contain anyway, and why
FLOAT_SORTS = {
    "TopK": "of costs, overlaps and distances, rounding changes which of two nearly equal ones is "
    "taken; places as keys (losses/assign/robust.py, models/dynamicdet/loss.py) are whole numbers, "
    "exact in float32, not above 2048 in float16",
}
LARGE_REMAINDERS: dict[str, str] = {}
UNCHECKED_INDICES = {
    "Gather": "predictions, by top-k or by cells of the map, and numbers of boxes",
    "GatherD": "results of top-k and argmax",
    "ScatterUpdate": "dynamicdet's history, whose slots are clamped to its length",
    "UnsortedSegmentMax": "predictions, by top-k or by cells of the map, and numbers of boxes",
    "UnsortedSegmentSum": "predictions, by top-k or by cells of the map, and numbers of boxes",
}
INT64 = {
    "ArgMaxWithValue": "MindSpore types its index so; only the value is read",
    "ArgMinWithValue": "MindSpore types its index so; only the value is read",
    "Argmax": "one number per prediction, cast to float32 at once",
    "Cast": "of argmax",
    "Reshape": "of argmax",
    "SumExt": "dynamicdet's count of images, one number, cast to int32 at once",
}


def used() -> dict[str, set[str]]:
    """Types by primitive, over all graphs."""
    types: dict[str, set[str]] = {}
    for graph in FOUND.values():
        for name, own in graph.items():
            types.setdefault(name, set()).update(own)
    return types


# ---- platforms -----------------------------------------------------------------------------------


def _package() -> Path:
    import mindspore

    return Path(mindspore.__file__).parent


def _names(file: str, pattern: bytes) -> set[str]:
    """What the group of ``pattern`` matches in a library of the wheel."""
    path = _package() / "lib" / "plugin" / file
    if not path.is_file():
        pytest.skip(f"this wheel has no {file}")
    with (
        path.open("rb") as library,
        mmap.mmap(library.fileno(), 0, access=mmap.ACCESS_READ) as text,
    ):
        return {name.decode() for name in re.findall(pattern, text)}


@functools.cache
def ascend_kernels() -> frozenset[str]:
    """Names of CANN's adapted operators, aclnn kernels and kernels of the AI CPU."""
    adapter = rb"OpAdapterI(?:N2ge2op|NS\w?_)\d+(?:cz|Cust)*(\w+?)E"
    info = (_package() / "config" / "op_info.config").read_text(encoding="utf-8")
    on_ai_cpu = {
        entry["op_name"]
        for entry in map(json.loads, info.splitlines())
        if entry["imply_type"] == "AiCPU"
    }
    return frozenset(
        _names("ascend/libmindspore_ascend_res_manager.so", adapter)
        | _names("ascend/libmindspore_graph_ir.so", adapter)
        | _names("libmindspore_ops_ascend.so", rb"7pyboost\d+(\w+?)AscendE")
        | _names("libmindspore_ops_ascend.so", rb"6kernel\d+(\w+?)AclnnKernelModE")
        | on_ai_cpu
    )


@functools.cache
def gpu_kernels() -> frozenset[str]:
    """Names of the classes of kernels for GPUs."""
    file = "libmindspore_gpu.so.11.6"
    return frozenset(
        _names(file, rb"6kernel\d+(\w+?)GpuKernel(?:Mod)?[EI]")
        | _names(file, rb"7pyboost\d+(\w+?)GPUE")
    )


def docstring(name: str) -> str:
    """MindSpore's text on a primitive, with the text of the function that it refers to."""
    from mindspore import ops
    from mindspore.ops.auto_generate import gen_ops_prim
    from mindspore.ops.operations import _grad_ops

    homes = [module for module in (ops, gen_ops_prim, _grad_ops) if name in vars(module)]
    text = "\n".join(vars(module)[name].__doc__ or "" for module in homes)
    for function in re.findall(r"Refer to :func:`mindspore\.ops\.(\w+)`", text):
        text += "\n" + (vars(ops)[function].__doc__ or "") if function in vars(ops) else ""
    return text


def platforms(name: str) -> set[str]:
    """Devices that support the primitive, determined as in this module's docstring."""
    found = documented_platforms(docstring(name)) | {"CPU"}
    if ASCEND_NAMES.get(name, name) in ascend_kernels():
        found.add("Ascend")
    if GPU_NAMES.get(name, name) in gpu_kernels():
        found.add("GPU")
    return found | {"Ascend", "GPU"} if name in EXPANDED else found


def test_every_primitive_has_kernels_on_every_device():
    wanted = {"Ascend", "GPU", "CPU"}
    missing = {
        name: sorted(wanted - platforms(name))
        for name in used()
        if name not in NO_KERNEL and not platforms(name) >= wanted
    }
    assert missing == {}


def test_the_audit_of_primitives_notices():
    assert platforms("NPUGetFloatStatus") == {"Ascend", "CPU"}
    assert "GPU" not in platforms("NoSuchPrimitive") and "Ascend" not in platforms(
        "NoSuchPrimitive"
    )
    assert {"MaxPoolGrad", "SiLUGrad", "BatchNormGrad", "StridedSliceGrad"} <= ascend_kernels()
    assert {"BroadcastOpGrad", "SiLUGrad", "BatchNormGrad", "StridedSliceGrad"} <= gpu_kernels()


def test_entries_of_the_audit_are_in_use_and_needed():
    names = used()
    for table in (NO_KERNEL, FLOAT_SORTS, LARGE_REMAINDERS, UNCHECKED_INDICES, INT64):
        assert set(table) <= set(names), set(table) - set(names)
    for name, other in ASCEND_NAMES.items():
        assert name in names and name not in ascend_kernels() and other in ascend_kernels(), name
    common = (_package() / "lib" / "libmindspore_backend_common.so").read_bytes()
    for name in EXPANDED:
        assert name in names and name not in gpu_kernels(), name
        assert f"\0{name}\0".encode() in common, name
    for name, other in GPU_NAMES.items():
        assert name in names and name not in gpu_kernels() and other in gpu_kernels(), name


# ---- limits --------------------------------------------------------------------------------------


def test_no_tensor_has_an_unknown_shape():
    assert {name: types for name, types in used().items() if DYNAMIC in str(types)} == {}


def test_sorts_of_float32_are_known():
    """``ops.sort``: "If use float32, it may cause loss of accuracy"; so may top-k."""
    assert "loss of accuracy" in docstring("Sort")
    sorts = {
        name
        for name, types in used().items()
        if re.search("Sort|TopK", name) and any(t.startswith("Float32") for t in types)
    }
    assert sorts == set(FLOAT_SORTS)


def test_remainders_are_known():
    """``ops.FloorMod``: inputs above 2048 lose accuracy on some devices."""
    assert "2048" in docstring("FloorMod")
    assert {name for name in used() if "Mod" in name} == set(LARGE_REMAINDERS)


def test_indices_that_nothing_checks_are_known():
    """``ops.gather``: where an index is out of range, "on Ascend, the results may be undefined"."""
    assert "undefined" in docstring("Gather")
    reads = {name for name in used() if re.search("Gather|Scatter|Segment|Embedding|Index", name)}
    assert reads == set(UNCHECKED_INDICES)


def test_64_bit_integers_are_known():
    """Ascend computes them on its AI CPU, which is slow, or not at all."""
    assert {name for name, types in used().items() if "Int64" in str(types)} - set(
        NO_KERNEL
    ) == set(INT64)


# ---- the list ------------------------------------------------------------------------------------


def test_every_family_and_loss_has_a_graph():
    assert set(FOUND) == set(CASES)
    losses = {loss for record in families().values() for loss in record.losses}
    assert {case[2] for case in CASES.values()} == losses
    smallest = {record.smallest for record in families().values()}
    assert {case[0] for case in CASES.values()} == smallest
    for graph in FOUND.values():
        assert {"Conv2D", "Conv2DBackpropFilter", "Assign"} <= set(graph)


@pytest.mark.all_cases
@pytest.mark.parametrize("case", CASES)
def test_the_list_is_up_to_date(case: str):
    assert compiled(case) == FOUND[case], "run `python tests/compiled_graphs.py`"

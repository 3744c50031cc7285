"""The messages that a user reads when MindSpore fails."""

import pytest

from mindyolo_ext.backend import BACKEND
from mindyolo_ext.errors import DeviceError

if BACKEND != "mindspore":
    pytest.skip("MindSpore's messages", allow_module_level=True)

from mindyolo_ext.backend.on_mindspore.errors import explained, without_call_stack

RULE = "-" * 52
STACK = f"\n\n{RULE}\n- C++ Call Stack: (For framework developers)\n{RULE}\nsome/file.cc:12 Run\n"
SHORTAGE = "Memory isn't enough and alloc failed, alloc size: 16B."
NO_MEMORY = f"\n{RULE}\n- Memory not enough:\n{RULE}\n{SHORTAGE}"


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (f"Unsupported device target Ascend.{STACK}", "Unsupported device target Ascend."),
        (NO_MEMORY + STACK, SHORTAGE),
        ("a - b\n-----\nplain", "a - b\n-----\nplain"),
        (STACK, ""),
    ],
)
def test_call_stacks_are_left_out(message: str, wanted: str):
    assert without_call_stack(RuntimeError(message)) == wanted


def test_only_a_lack_of_memory_is_the_device_s():
    with (
        pytest.raises(
            DeviceError,
            match="^the step: not enough device memory; buy more \\(Memory isn't .*16B.\\)$",
        ),
        explained("the step", "buy more"),
    ):
        raise RuntimeError(NO_MEMORY + STACK)
    with pytest.raises(RuntimeError, match="no kernel") as caught, explained("the step", ""):
        raise RuntimeError("no kernel for this operator" + STACK)
    assert not isinstance(caught.value, DeviceError)

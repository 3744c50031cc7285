"""The messages that a user reads when PyTorch fails."""

import pytest

from mindyolo_ext.errors import DeviceError

pytestmark = pytest.mark.needs_torch


def test_only_a_lack_of_memory_is_the_device_s() -> None:
    from mindyolo_ext.backend.on_torch.errors import explained, first_line

    lacking = "[enforce fail at alloc.cpp:1] DefaultCPUAllocator: can't allocate memory: you\nmore"
    assert first_line(RuntimeError(lacking)).startswith("DefaultCPUAllocator")
    for message in (
        lacking,
        "CUDA out of memory. Tried to allocate 2.00 GiB.\nframe #0",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ):
        with (
            pytest.raises(DeviceError, match="^the step: not enough device memory; buy more \\("),
            explained("the step", "buy more"),
        ):
            raise RuntimeError(message)
    with pytest.raises(RuntimeError, match="shapes") as caught, explained("the step", ""):
        raise RuntimeError("shapes cannot be multiplied")
    assert not isinstance(caught.value, DeviceError)

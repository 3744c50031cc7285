"""Mixed precision: the network computes in half precision, what it gives stays in float32."""

import numpy as np
import pytest

from mindyolo_ext.backend import Tensor, float32, nn
from mindyolo_ext.backend.launch import set_seed
from mindyolo_ext.backend.precision import apply
from mindyolo_ext.models.registry import create_model


@pytest.mark.needs_torch  # MindSpore's takes effect only in what it changes in place
def test_outputs_stay_in_float32_and_close() -> None:
    images = Tensor(np.random.RandomState(0).uniform(0, 1, (1, 3, 64, 64)).astype(np.float32))
    set_seed(1)
    model = create_model("yolo_fastestv2", num_classes=3)
    wanted = [head.asnumpy() for head in model(images)]
    apply(model, "O0")
    np.testing.assert_array_equal(model(images)[0].asnumpy(), wanted[0])
    apply(model, "O2")
    for head, plain in zip(model(images), wanted, strict=True):
        assert head.dtype == float32
        difference = np.abs(head.asnumpy() - plain).max()
        assert 0 < difference < 0.02 * np.abs(plain).max()
    assert all(p.dtype == float32 for p in model.get_parameters())
    assert isinstance(model, nn.Cell)

"""Convolutions as the families build them."""

from mindyolo_ext.backend import Parameter, Tensor
from mindyolo_ext.layers.conv import conv2d


def test_first_values_are_not_kept_beside_the_weights():
    conv = conv2d(4, 8, 3, has_bias=True)
    assert {name for name, _ in conv.parameters_and_names()} == {"weight", "bias"}
    kept = [name for name, value in vars(conv).items() if isinstance(value, Tensor)]
    assert not [name for name in kept if not isinstance(vars(conv)[name], Parameter)]

"""GFLOPs: computed by hand for toys, also at sizes that were not run; as published for the
families.
"""

import pytest
from routed_toy import RoutedToy

from mindyolo_ext.backend import Tensor, nn, ops
from mindyolo_ext.backend.mode import eager, is_eager
from mindyolo_ext.backend.observe import watched_convolutions
from mindyolo_ext.engine.flops import RoutedGflops, gflops, routed_gflops
from mindyolo_ext.models.registry import create_model, families

pytestmark = pytest.mark.graph
# Operations for one image of 64 x 96 and 3 classes, the same for every backend
OPERATIONS = {
    "dy_yolov7_w0125": 49_315_284,
    "gold_yolo_n": 180_578_176,
    "simple_yolo_resnet18": 301_708_800,
    "yolo_fastestv2": 10_217_664,
    "yolox_nano": 35_862_528,
}


def test_parts_of_a_toy_by_hand():
    """Kernels: backbone 8 x 8 x 3 -> 4 at stride 8 (twice in the second exit), neck 3 x 3 x 4 ->
    6, heads to 5.
    """
    found, cells = routed_gflops(RoutedToy(), (32, 48)), 4 * 6
    backbone, neck = 2 * cells * 4 * 3 * 64, 2 * cells * 6 * 4 * 9
    assert found.glance * 1e9 == pytest.approx(backbone + neck)
    assert found.first * 1e9 == pytest.approx(2 * cells * 5 * 6)
    assert found.second * 1e9 == pytest.approx(backbone + 2 * cells * 5 * 4)
    assert found.mean(0.25) == pytest.approx(0.25 * found.easy + 0.75 * found.hard)
    assert gflops(RoutedToy(), (32, 48)) == found.hard


class Various(nn.Cell):
    """A grouped convolution, a dense layer on pooled values, and a convolution with a part of a
    weight.
    """

    strides = (4,)

    def __init__(self):
        super().__init__()
        self.grouped = nn.Conv2d(4, 8, 3, 2, pad_mode="pad", padding=1, group=4, has_bias=True)
        self.part = nn.Conv2d(8, 6, 1, has_bias=True)
        self.dense = nn.Dense(8, 10)
        self.idle = nn.Conv2d(4, 400, 3)
        self.convolve = ops.Conv2D(out_channel=2, kernel_size=(1, 1))

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.grouped(ops.cat((images, images[:, :1]), 1))
        return self.dense(ops.mean(x, (2, 3))), self.convolve(x, self.part.weight[:2])


def test_groups_pooled_values_and_parts_of_weights():
    cells = 8 * 10
    wanted = 2 * (cells * 8 * 9 + 8 * 10 + cells * 2 * 8)
    assert gflops(Various(), (16, 20)) * 1e9 == pytest.approx(wanted, abs=1e-3)


def test_counting_leaves_the_framework_as_it_was():
    before, network = ops.Conv2D.__call__, Various()
    gflops(network, (16, 16))
    assert ops.Conv2D.__call__ is before
    names = ("_forward_hook", "_forward_hooks")  # MindSpore's, PyTorch's
    hooks = [getattr(network.dense, name) for name in names if hasattr(network.dense, name)]
    assert hooks and not any(hooks)
    with (
        pytest.raises(RuntimeError, match="broken"),
        eager(),
        watched_convolutions(lambda *_: None),
    ):
        raise RuntimeError("broken")
    assert ops.Conv2D.__call__ is before
    assert not is_eager()


@pytest.mark.parametrize(
    ("name", "size", "published"),
    [
        ("yolox_nano", 416, 1.08),
        pytest.param("gold_yolo_n", 640, 12.1, marks=pytest.mark.all_cases),
    ],
)
def test_families_cost_what_was_published(name: str, size: int, published: float):
    """The published number of Nano includes batch norms, which are 3 % of such a thin network."""
    assert gflops(create_model(name, 80), (size, size)) == pytest.approx(published, rel=0.035)


def test_dynamicdet_costs_what_the_original_s_counter_says():
    """thop on the fused original: 2.02 and 3.45 GFLOPs at 640."""
    found = routed_gflops(create_model("dy_yolov7_w0125", 80), (640, 640))
    assert (round(found.easy, 2), round(found.hard, 2)) == (2.02, 3.45)


@pytest.mark.all_cases
@pytest.mark.parametrize(
    ("name", "size", "easy", "hard"),
    [
        ("dy_yolov7", 640, 104.52, 181.72),
        ("dy_yolov7x", 640, 189.68, 307.64),
        ("dy_yolov7_w6", 1280, 359.7, 601.7),
    ],
)
def test_official_variants_cost_what_the_original_s_counter_says(
    name: str, size: int, easy: float, hard: float
):
    found = routed_gflops(create_model(name, 80), (size, size))
    assert (found.easy, found.hard) == (
        pytest.approx(easy, rel=1e-4),
        pytest.approx(hard, rel=1e-4),
    )


def test_the_mean_follows_the_share():
    parts = RoutedGflops(glance=1.0, first=2.0, second=6.0)
    assert (
        (parts.mean(1), parts.mean(0), parts.mean(0.5))
        == (parts.easy, parts.hard, 5.0)
        == (3.0, 7.0, 5.0)
    )


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_backend_counts_the_same(name: str):
    counted = gflops(create_model(name, 3), (64, 96)) * 1e9
    assert counted == pytest.approx(OPERATIONS[name], abs=0.5, rel=0)


def test_the_smallest_model_of_every_family_is_counted():
    assert set(OPERATIONS) == {record.smallest for record in families().values()}

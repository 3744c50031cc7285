"""A routed detector without training: an image's easiness is its mean, so tests choose which images
are easy.
"""

import numpy as np

from mindyolo_ext.backend import Tensor, nn, ops
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.layers.conv import conv2d
from mindyolo_ext.priors import Priors, grid_priors

SIDE = 32


class RoutedToy(nn.Cell):
    """Shape: images (B, 3, H, W) in 0..1 -> boxes (B, H / 8 * W / 8, 4), scores (B, H / 8 * W /
    8, K).
    """

    family = "toy"
    strides = (8,)

    def __init__(self, num_classes: int = 1, *, seed: int = 0, router: bool = True):
        super().__init__()
        self.num_classes, self.has_router, self.dy_thres = num_classes, router, 0.5
        self.architecture = {"router": router}
        self.input_spec = InputSpec(size=(SIDE, SIDE), color="rgb", stride=8)
        self.backbone = nn.Conv2d(3, 4, 8, 8, pad_mode="valid", padding=0, has_bias=False)
        self.neck = conv2d(4, 6, 3, has_bias=True)
        self.head = conv2d(6, 4 + num_classes, 1)
        self.head2 = conv2d(4, 4 + num_classes, 1)
        rng = np.random.default_rng(seed)
        for parameter in self.get_parameters():
            parameter.set_data(Tensor(rng.normal(0, 1, parameter.shape).astype(np.float32)))

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.predict(images)

    def glance(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        maps = self.backbone(images)
        easiness = ops.mean(images, (1, 2, 3))
        return easiness if self.has_router else easiness * 0.0, (maps, self.neck(maps))

    def first(self, features: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return self._decoded(self.first_heads(features)[0])

    def second(self, images: Tensor, features: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return self._decoded(self.second_heads(images, features)[0])

    def first_heads(self, features: tuple[Tensor, Tensor]) -> tuple[Tensor]:
        return (self.head(features[1]),)

    def second_heads(self, images: Tensor, features: tuple[Tensor, Tensor]) -> tuple[Tensor]:
        return (self.head2(features[0] + self.backbone(images * images)),)

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        easiness, features = self.glance(images)
        hard = ops.reshape(easiness < self.dy_thres, (-1, 1, 1))
        first, second = self.first(features), self.second(images, features)
        return ops.where(hard, second[0], first[0]), ops.where(hard, second[1], first[1])

    def priors(self, height: int, width: int) -> Priors:
        return grid_priors(height, width, self.strides)

    def to_deploy(self) -> "RoutedToy":
        network = RoutedToy(self.num_classes, router=self.has_router)
        for mine, its in zip(self.get_parameters(), network.get_parameters()):
            its.set_data(Tensor(mine.asnumpy()))
        return network

    def _decoded(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        rows = ops.transpose(
            ops.reshape(maps, (maps.shape[0], 4 + self.num_classes, -1)), (0, 2, 1)
        )
        corner = ops.abs(rows[:, :, 0:2])
        return ops.cat((corner, corner + 8.0 * ops.abs(rows[:, :, 2:4])), 2), ops.sigmoid(
            rows[:, :, 4:]
        )


def images_of(easiness: list[float], side: int = SIDE) -> np.ndarray:
    """An image (3, side, side) with each mean, all different."""
    noise = np.random.default_rng(1).normal(0, 0.1, (len(easiness), 3, side, side))
    noise -= noise.mean((1, 2, 3), keepdims=True)
    return (noise + np.reshape(easiness, (-1, 1, 1, 1))).astype(np.float32)

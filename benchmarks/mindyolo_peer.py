"""MindYOLO as a peer, on the MindSpore of this project. ``mindyolo_peer.py CLONE``; the clone stays
unchanged.
"""

import os
import sys

# as this project sets it, before MindSpore is imported
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
sys.path.insert(0, sys.argv[1])

import mindspore
import numpy as np
from mindspore import Tensor
from mindyolo.models import create_loss, create_model
from mindyolo.optim import EMA, create_group_param, create_optimizer
from mindyolo.utils.config import Config, load_config
from mindyolo.utils.train_step_factory import create_train_step_fn, get_gradreducer, get_loss_scaler
from serving import Tasks, serve


class MindYOLO(Tasks):
    """The jobs that the driver may ask for."""

    def jobs(self) -> dict:
        """Methods by the name of the job."""
        return {"measure": self.measure, "about": self.about, "train_step": self.train_step}

    def about(self) -> dict:
        """Versions, for the report."""
        return {"MindSpore of MindYOLO": mindspore.__version__}

    def train_step(self, task: str, recipe: str, batch: str, rate: float) -> list[float]:
        """Prepare the compiled training step of a recipe in the clone, with random weights.

        Returns: total, box, object, class and L1 loss of the first step.
        """
        config = Config(load_config(os.path.join(sys.argv[1], recipe))[0])
        config.network.recompute, config.network.recompute_layers = False, 0
        arrays = np.load(batch)
        network, average = (
            create_model(model_name="yolox", model_cfg=config.network, num_classes=80) for _ in "ab"
        )
        loss = create_loss(
            **{**config.loss, "input_size": list(arrays["images"].shape[2:])},
            anchors=1,
            stride=config.network.stride,
            nc=80,
        )
        groups = create_group_param(params=network.trainable_params(), **config.optimizer)
        optimizer = create_optimizer(params=groups, lr=rate, **config.optimizer)
        step = create_train_step_fn(
            task="detect",
            network=network.set_train(True),
            loss_fn=loss,
            optimizer=optimizer,
            loss_ratio=1,
            scaler=get_loss_scaler("none"),
            reducer=get_gradreducer(False, optimizer.parameters),
            ema=EMA(network, average),
            ms_jit=True,
        )
        images = Tensor(arrays["images"] / np.float32(255))
        targets, mask = arrays["targets"], arrays["mask"]
        numbers = np.broadcast_to(np.arange(len(targets))[:, None, None], (*targets.shape[:2], 1))
        labels = Tensor(
            np.where(mask[..., None] > 0, np.concatenate([numbers, targets], 2), -1).astype(
                np.float32
            )
        )

        def call() -> list[float]:
            return step(images, labels, True)[1].asnumpy().tolist()

        self.tasks[task] = call
        return call()


if __name__ == "__main__":
    mindspore.set_device("CPU")
    # as its train.py
    mindspore.set_context(mode=mindspore.GRAPH_MODE, jit_config={"jit_level": "O2"})
    serve(MindYOLO())

"""Run two training steps on this rank's part of a fixed global batch; rank 0 saves losses and
weights.

python ranks_program.py OUT.npz frozen|synchronized
"""

import os
import sys

import numpy as np

from mindyolo_ext.backend import Tensor, launch

GLOBAL_BATCH, SIDE = 4, 64


def main(out: str, statistics: str) -> None:
    this = launch.start("CPU", is_parallel=launch.launcher_of(dict(os.environ))[1] > 1, seed=5)
    from mindyolo_ext.backend.distributed import (
        freeze_batch_norm,
        gather_rows,
        synchronize_batch_norm,
    )
    from mindyolo_ext.backend.parameters import parameter_groups, parameter_values
    from mindyolo_ext.backend.train_step import OptimizerOptions, TrainStep
    from mindyolo_ext.models.registry import create_model, create_trainable

    anchors = [[10, 10], [16, 16], [24, 24], [30, 20], [40, 40], [50, 60]]
    model = create_model("yolo_fastestv2", num_classes=4, anchors=anchors)
    changed = freeze_batch_norm(model) if statistics == "frozen" else synchronize_batch_norm(model)
    assert changed > 50
    trainable = create_trainable("yolo_fastestv2_loss", model)
    step = TrainStep(
        trainable, parameter_groups(trainable, "single", 5e-4), OptimizerOptions(clip_norm=50.0)
    )
    rng = np.random.RandomState(0)
    images = rng.rand(GLOBAL_BATCH, 3, SIDE, SIDE).astype(np.float32)
    targets = rng.uniform(0.2, 0.7, (GLOBAL_BATCH, 8, 5)).astype(np.float32)
    targets[..., 0] = rng.randint(0, 4, (GLOBAL_BATCH, 8))
    # the ranks have different numbers of boxes
    mask = (np.arange(8) < np.array([[1], [8], [0], [4]])).astype(np.float32)
    share = GLOBAL_BATCH // this.size
    mine = slice(this.rank * share, (this.rank + 1) * share)
    reports, weights = [], {}
    for count in (1, 2):
        report = step(
            images[mine],
            targets[mine],
            mask[mine],
            np.array([1e-3], np.float32),
            np.array([0.9, 1.0, 0.0], np.float32),
        )
        reports.append(report)
        if count == 1 or statistics == "frozen":  # later ones are chaotic on batch statistics
            values = parameter_values(model).items()
            weights |= {f"{name} after {count}": value for name, value in values}
    moving = model.backbone.first_conv[1].moving_mean
    before = moving.asnumpy().copy()
    moving.set_data(Tensor(before + this.rank))
    step.share_statistics()
    assert np.allclose(moving.asnumpy(), before + (this.size - 1) / 2, atol=1e-6)
    moving.set_data(Tensor(before))
    rows = gather_rows(np.full((3 + 5000 * this.rank, 2), this.rank, np.float32))
    if this.is_main:
        np.savez(out, reports=np.stack(reports), ranks=rows[:, 0], **weights)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Which checkpoints are kept, also after a kill, and when patience is over."""

from pathlib import Path

import pytest

from mindyolo_ext.config import TrainConfig
from mindyolo_ext.engine.keeping import KeptCheckpoints, is_out_of_patience

VALUES = {0: 0.1, 1: 0.3, 2: None, 3: 0.2, 4: 0.3, 5: 0.05}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def add(kept: KeptCheckpoints, epochs, interval: int = 1) -> None:
    for epoch in epochs:
        kept.add(
            epoch,
            VALUES[epoch],
            is_due=(epoch + 1) % interval == 0,
            save=lambda path, epoch=epoch: path.write_text(str(epoch), encoding="utf-8"),
        )


def test_without_a_word_nothing_is_kept(tmp_path):
    add(KeptCheckpoints(tmp_path, TrainConfig()), VALUES)
    assert names(tmp_path) == []


def test_the_newest_and_the_best_stay(tmp_path):
    settings = TrainConfig(keep_checkpoint_max=2, keep_best=2)
    kept = KeptCheckpoints(tmp_path, settings)
    add(kept, VALUES, interval=2)
    assert names(tmp_path) == [
        "epoch2_AP0.3000.ckpt",  # the earlier of two equals
        "epoch4.ckpt",
        "epoch5_AP0.3000.ckpt",
        "epoch6.ckpt",
    ]
    assert (tmp_path / "epoch5_AP0.3000.ckpt").read_text(encoding="utf-8") == "4"


@pytest.mark.parametrize("saved_after, killed_after", [(1, 3), (2, 2), (0, 5)])
def test_a_killed_run_ends_with_the_same_files(tmp_path, saved_after, killed_after):
    """The state comes from the last checkpoint; files of later epochs may already exist."""
    settings = TrainConfig(keep_checkpoint_max=2, keep_best=2)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir(), broken.mkdir()
    add(KeptCheckpoints(whole, settings), VALUES)
    kept = KeptCheckpoints(broken, settings)
    add(kept, range(saved_after + 1))
    state = kept.state()
    add(kept, range(saved_after + 1, killed_after + 1))
    (broken / "epoch6_AP0.9000.ckpt").touch()  # the result was different before the kill
    again = KeptCheckpoints(broken, settings, state)
    again.remove_later(saved_after + 1)
    add(again, range(saved_after + 1, 6))
    assert names(broken) == names(whole)
    assert again.state() == {
        "newest": [4, 5],
        "best": [[1, 0.3], [4, 0.3]],
        "metric": "AP",
    }


def test_only_files_of_its_own_are_deleted(tmp_path):
    for name in (
        "epochs.ckpt",
        "epoch9.safetensors",
        "best.ckpt",
        "epoch9_mine.ckpt",
        "epoch2.ckpt",
    ):
        (tmp_path / name).touch()
    KeptCheckpoints(tmp_path, TrainConfig()).remove_later(1)
    assert names(tmp_path) == ["best.ckpt", "epoch9.safetensors", "epoch9_mine.ckpt", "epochs.ckpt"]


def test_another_metric_begins_a_new_order(tmp_path):
    state = {"newest": [], "best": [[0, 0.9]], "metric": "AP50"}
    kept = KeptCheckpoints(tmp_path, TrainConfig(keep_best=2), state)
    add(kept, [1])
    assert names(tmp_path) == ["epoch2_AP0.3000.ckpt"]


@pytest.mark.parametrize(
    "patience, epoch, best_epoch, fitness, over",
    [
        (0, 99, 0, 0.5, False),
        (3, 4, 2, 0.5, False),
        (3, 5, 2, 0.5, True),
        (3, 9, 0, 0.0, False),  # no detections yet
        (3, 9, -1, -1.0, False),  # never evaluated
        (3, 9, 0, -1.0, False),  # no objects
    ],
)
def test_patience(patience, epoch, best_epoch, fitness, over):
    settings = TrainConfig(patience=patience)
    assert is_out_of_patience(settings, epoch, best_epoch, fitness) is over


def test_patience_waits_for_the_next_evaluation():
    settings = TrainConfig(patience=3, eval_interval=10)
    over = [epoch for epoch in range(40) if is_out_of_patience(settings, epoch, 9, 0.5)]
    assert over == [19, 29, 39]

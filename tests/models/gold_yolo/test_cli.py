"""The commands of Gold-YOLO's two training steps: what reaches the training, and the errors for
wrong ones.
"""

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from helpers import Command
from launching import ROOT

from mindyolo_ext.backend.parameters import parameter_values
from mindyolo_ext.checkpoint.store import CheckpointMetadata, save_checkpoint
from mindyolo_ext.config import Config, load_config
from mindyolo_ext.data.shapes import SHAPE_NAMES, make_shapes_dataset
from mindyolo_ext.models.registry import create_model

RECIPES = ROOT / "configs" / "gold_yolo"
pytestmark = pytest.mark.usefixtures("quiet_logging")


@pytest.fixture
def told(command: Command) -> Command:
    """Run a command and also return the last line of its output, if any."""

    def run(*arguments: object) -> tuple[int, str]:
        status, text = command(*arguments)
        assert "Traceback" not in text
        return status, (text.strip().splitlines() or [""])[-1]

    return run


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Replace the training; returns the recipes it would have been called with."""
    calls: list[Config] = []
    monkeypatch.setattr(
        "mindyolo_ext.engine.train.train", lambda config, *_, **__: calls.append(config)
    )
    return calls


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gold_yolo_cli")


@pytest.fixture(scope="module")
def recipe(folder: Path) -> Path:
    """n's recipe of step 1 on drawn images of 3 classes."""
    shapes = make_shapes_dataset(
        folder / "shapes", train_images=2, val_images=1, size=(64, 64), progress=False
    )
    train, val = (
        {"format": "coco", "images": f"images/{split}", "annotations": f"annotations/{split}.json"}
        for split in ("train", "val")
    )
    path = folder / "shapes.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "__BASE__": str(RECIPES / "gold_yolo-n.yaml"),
                "input": {"size": [64, 64], "border": 0},
                "data": {"root": str(shapes), "train": train, "val": val},
                "train": {"epochs": 1, "per_batch_size": 2},
            }
        )
    )
    return path


def checkpoint(path: Path, name: str, num_classes: int, **keywords: object) -> Path:
    """Fresh weights as a checkpoint."""
    model = create_model(name, num_classes, **keywords)
    save_checkpoint(
        path,
        parameter_values(model),
        CheckpointMetadata(name, num_classes, [], model.input_spec, dict(model.architecture)),
    )
    return path


@pytest.mark.parametrize(
    ("scale", "form", "class_weight"), [("n", "distill", 1.0), ("l", "plain", 2.0)]
)
def test_naming_a_teacher_turns_step_1_into_step_2(
    told: Command, trained: list[Config], scale: str, form: str, class_weight: float
):
    """The README's command: the recipe of step 1 plus the teacher. Other flags still win over the
    second recipe.
    """
    first, second = (RECIPES / f"gold_yolo-{scale}{step}.yaml" for step in ("", "-distill"))
    assert told("train", "--config", first)[0] == 0
    assert trained.pop() == load_config(first)
    assert (
        told(
            "train",
            "--config",
            first,
            "--set",
            "train.distill.teacher=step1.ckpt",
            "--epochs",
            7,
            "--set",
            "train.loss.temperature=10",
        )[0]
        == 0
    )
    config = trained.pop()
    assert config.model.keywords == {"form": form}
    assert config.train.loss["name"] == "gold_yolo_distill_loss"
    assert (config.train.loss["distill_class"], config.train.loss["temperature"]) == (
        class_weight,
        10,
    )
    assert (config.train.epochs, config.train.distill.teacher) == (7, "step1.ckpt")
    assert (
        told(
            "train",
            "--config",
            second,
            "--set",
            "train.distill.teacher=step1.ckpt",
            "--epochs",
            7,
            "--set",
            "train.loss.temperature=10",
        )[0]
        == 0
    )
    assert asdict(trained.pop()) == asdict(config)


def test_step_2_without_a_teacher(told: Command, recipe: Path, folder: Path):
    status, message = told(
        "train",
        "--config",
        recipe,
        "--save_dir",
        folder / "run",
        "--set",
        "train.loss.name=gold_yolo_distill_loss",
        "--set",
        "model.keywords.form=distill",
    )
    assert status == 1
    assert message.startswith("error: train.loss: gold_yolo_distill_loss learns from a teacher")
    assert "--set train.distill.teacher=FILE.ckpt" in message and not (folder / "run").exists()


def test_teachers_that_do_not_fit(told: Command, recipe: Path, folder: Path):
    for teacher, wanted in (
        (folder / "nowhere.ckpt", "nowhere.ckpt: no such file"),
        (
            checkpoint(folder / "two.ckpt", "gold_yolo_n", 2, form="fuse_ab"),
            "train.distill.teacher: "
            + str(folder / "two.ckpt")
            + " has number of classes 2, the network that learns has 3",
        ),
        (
            checkpoint(folder / "other.ckpt", "yolox_nano", len(SHAPE_NAMES)),
            "has family yolox, the network that learns has gold_yolo",
        ),
    ):
        status, message = told(
            "train",
            "--config",
            recipe,
            "--save_dir",
            folder / "run",
            "--set",
            f"train.distill.teacher={teacher}",
        )
        assert status == 1 and message.startswith("error: ") and wanted in message
        assert not (folder / "run").exists()


def test_a_teacher_for_a_loss_that_learns_from_none(told: Command, recipe: Path, folder: Path):
    teacher = checkpoint(folder / "three.ckpt", "gold_yolo_n", len(SHAPE_NAMES))
    status, message = told(
        "train",
        "--config",
        recipe,
        "--save_dir",
        folder / "run",
        "--set",
        f"train.distill={{teacher: {teacher}, recipe: ''}}",
    )
    assert status == 1 and not (folder / "run").exists()
    assert message == (
        "error: train.distill.teacher is set, but train.loss.name is gold_yolo_loss, "
        "which does not use a teacher"
    )


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (
            "model.keywords.form=fuse",
            "form must be one of ('plain', 'fuse_ab', 'distill'), got 'fuse'",
        ),
        (
            "model.keywords.form=distill",
            "gold_yolo_loss: the model's form must be one of ('fuse_ab', 'plain'), got 'distill'",
        ),
        (
            "train.distill.techer=x.ckpt",
            "error: --set: unknown key train.distill.techer, did you mean train.distill.teacher?",
        ),
        ("train.loss.normalizer=rank", "normalizer"),
    ],
)
def test_a_wrong_form_or_key(told: Command, recipe: Path, tmp_path: Path, change: str, wanted: str):
    status, message = told(
        "train", "--config", recipe, "--save_dir", tmp_path / "run", "--set", change
    )
    assert status == 1 and message.startswith("error: ") and wanted in message

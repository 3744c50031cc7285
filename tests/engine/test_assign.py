"""The verb ``assign``: which images it takes, what it computes and writes, and what it refuses."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from mindyolo_ext import cli
from mindyolo_ext.backend.parameters import parameter_values
from mindyolo_ext.checkpoint.store import CheckpointMetadata, save_checkpoint
from mindyolo_ext.config import Config, load_config
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.image_file import read_image
from mindyolo_ext.data.shapes import make_shapes_dataset
from mindyolo_ext.engine import assign as module
from mindyolo_ext.engine.assign import assign, choose_pictures
from mindyolo_ext.engine.build import split_dataset
from mindyolo_ext.models.registry import create_model

SIZE = [64, 96]
ANCHORS = [[12, 12], [20, 20], [30, 30], [40, 40], [55, 55], [70, 70]]
pytestmark = pytest.mark.usefixtures("quiet_logging")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe for 6 drawn images; the third has no box."""
    folder = tmp_path_factory.mktemp("assign")
    shapes = make_shapes_dataset(
        folder / "shapes", train_images=6, val_images=1, size=(96, 128), progress=False
    )
    file = shapes / "annotations" / "train.json"
    labels = json.loads(file.read_text())
    third = labels["images"][2]["id"]
    labels["annotations"] = [row for row in labels["annotations"] if row["image_id"] != third]
    file.write_text(json.dumps(labels))
    split = {"format": "coco", "images": "images/train", "annotations": "annotations/train.json"}
    values = {
        "model": {"name": "yolo_fastestv2", "keywords": {"anchors": ANCHORS}},
        "input": {"size": SIZE},
        "data": {
            "root": str(shapes),
            "train": split,
            "augment": ["horizontal_flip", "resize"],
            "workers": 0,
        },
        "train": {"loss": {"ratio_threshold": 2.5}},
    }
    path = folder / "shapes.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def config(recipe: Path) -> Config:
    return load_config(recipe)


@pytest.fixture(scope="module")
def dataset(config: Config) -> Dataset:
    return split_dataset(config, "train")


# ---- which images --------------------------------------------------------------------------------


def test_pictures_by_name_pattern_number_and_count(dataset: Dataset):
    names = [Path(path).name for path in dataset.paths]
    assert choose_pictures(dataset, image=[names[4]]) == [4]
    assert choose_pictures(dataset, image=[Path(names[4]).stem, f"train/{names[1]}", names[4]]) == [
        4,
        1,
    ]
    assert choose_pictures(dataset, image=["*"]) == list(range(6))
    assert choose_pictures(dataset, image=[f"*{names[3][-7:]}"]) == [3]
    assert choose_pictures(dataset, index=[5, 0, 5]) == [5, 0]
    assert choose_pictures(dataset, count=2) == [0, 5] and choose_pictures(dataset, count=1) == [0]
    assert choose_pictures(dataset, count=99) == [0, 1, 3, 4, 5]  # the third has no box


def test_pictures_that_do_not_exist(dataset: Dataset):
    name = Path(dataset.paths[4]).name
    with pytest.raises(
        ValueError,
        match=f"--image x{name}: no such image among the 6 of .*closest names.* {name}",
    ):
        choose_pictures(dataset, image=["x" + name])
    with pytest.raises(ValueError, match=f"closest names are {name}$"):  # part of a name
        choose_pictures(dataset, image=[Path(name).stem[-3:]])
    with pytest.raises(ValueError, match="no such image"):
        choose_pictures(dataset, image=[f"val/{name}"])
    with pytest.raises(ValueError, match=r"--index: .*images 0\.\.5, got \[6, -1\]"):
        choose_pictures(dataset, index=[2, 6, -1])
    with pytest.raises(ValueError, match="--count must be at least 1, got 0"):
        choose_pictures(dataset, count=0)


# ---- the assignment ------------------------------------------------------------------------------


def drawn(monkeypatch: pytest.MonkeyPatch) -> list:
    """Collect the pictures that ``assign`` would draw."""
    found = []
    monkeypatch.setattr(
        module, "draw_assignment", lambda picture, path: found.append((picture, path))
    )
    return found


def expected_matches(boxes: np.ndarray, priors, threshold: float) -> np.ndarray:
    """(N, A) computed with loops: similar sides, and the cell of the center or its nearer neighbors
    in each direction.
    """
    wanted = np.zeros((len(boxes), len(priors)), bool)
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        for place in range(len(priors)):
            ratios = (x2 - x1) / priors.width[place], (y2 - y1) / priors.height[place]
            if max(*ratios, *(1 / r for r in ratios)) >= threshold:
                continue
            away_x = abs((x1 + x2) / 2 - priors.x[place]) / priors.stride[place]
            away_y = abs((y1 + y2) / 2 - priors.y[place]) / priors.stride[place]
            wanted[number, place] = (away_x < 0.5 and away_y < 1) or (away_x < 1 and away_y < 0.5)
    return wanted


def test_matches_boxes_and_picture_are_what_the_network_gets(
    config: Config,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    found = drawn(monkeypatch)
    with caplog.at_level(logging.INFO):
        assign(config, [1, 2, 4], tmp_path, dataset=dataset)
    assert "fresh weights" in caplog.text and "left out because they have no box: " in caplog.text
    assert [path.name for _, path in found] == [
        f"{Path(dataset.paths[index]).stem}.png" for index in (1, 4)
    ]
    total = 0
    for (picture, _), index in zip(found, (1, 4), strict=True):
        sample = dataset.load(index)
        spec = create_model("yolo_fastestv2", 3, input_size=tuple(SIZE)).input_spec
        image, placement = spec.resize_image(sample.image)
        np.testing.assert_array_equal(picture.image, image)
        np.testing.assert_allclose(picture.boxes, placement.to_network(sample.boxes), atol=1e-4)
        np.testing.assert_array_equal(picture.labels, sample.labels)
        assert len(picture.priors) == 3 * (4 * 6 + 2 * 3)
        np.testing.assert_array_equal(
            picture.matches, expected_matches(picture.boxes, picture.priors, 2.5)
        )
        total += picture.matches.sum()
        assert f"image {index} of" in caplog.text
    assert total > 10


def test_augmented_pictures_are_those_of_the_first_epoch(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found = drawn(monkeypatch)
    assign(config, [0, 1, 3, 4, 5], tmp_path, dataset=dataset, augment=True)
    spec = create_model("yolo_fastestv2", 3, input_size=tuple(SIZE)).input_spec
    flipped = 0
    for (picture, _), index in zip(found, (0, 1, 3, 4, 5), strict=True):
        plain = spec.resize_image(dataset.load(index).image)[0]
        wanted = module.training_pipeline(
            config.data.augment, spec, dataset, seed=config.train.seed
        )(index)
        np.testing.assert_array_equal(picture.image, wanted.image)
        np.testing.assert_array_equal(picture.boxes, wanted.boxes)
        flipped += (picture.image != plain).any()
    assert 0 < flipped < 5


def test_a_network_that_learns_from_a_teacher(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found = drawn(monkeypatch)
    teacher = create_model("gold_yolo_n", 3, form="fuse_ab", input_size=(64, 96))
    metadata = CheckpointMetadata(
        "gold_yolo_n",
        3,
        class_names=list(dataset.class_names),
        input_spec=teacher.input_spec,
        architecture=teacher.architecture,
    )
    save_checkpoint(tmp_path / "teacher.ckpt", parameter_values(teacher), metadata)
    learns = replace(
        config,
        model=replace(config.model, name="gold_yolo_n", keywords={"form": "distill"}),
        train=replace(
            config.train,
            loss={"name": "gold_yolo_distill_loss"},
            distill=replace(config.train.distill, teacher=str(tmp_path / "teacher.ckpt")),
        ),
    )
    assign(learns, [1], tmp_path, dataset=dataset)
    assert found[0][0].matches.sum() > 0


def test_the_verb_writes_pictures_and_tables(
    recipe: Path, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture
):
    model = create_model("yolo_fastestv2", 3, anchors=ANCHORS, input_size=tuple(SIZE))
    metadata = CheckpointMetadata(
        "yolo_fastestv2", 3, list(dataset.class_names), model.input_spec, model.architecture
    )
    save_checkpoint(tmp_path / "w.ckpt", parameter_values(model), metadata)
    arguments = [
        "assign",
        "--config",
        str(recipe),
        "--index",
        "0",
        "--weight",
        str(tmp_path / "w.ckpt"),
    ]
    assert cli.main([*arguments, "--save_dir", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "fresh weights" not in said
    path = tmp_path / "out" / f"{Path(dataset.paths[0]).stem}.png"
    assert list((tmp_path / "out").iterdir()) == [path]
    assert read_image(path).shape[0] > 1000
    lines = [line for line in said.splitlines() if line[:1].isdigit() and " x " in line]
    assert len(lines) == len(dataset.labels(0))
    assert f"{path} (image 0 of {dataset.name})" in said


def test_the_verb_refuses(
    recipe: Path, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture
):
    def message(*arguments: object) -> str:
        assert cli.main(["assign", "--config", str(recipe), *map(str, arguments)]) == 1
        said = capsys.readouterr().out
        assert "Traceback" not in said
        return said.strip().splitlines()[-1]

    name = Path(dataset.paths[2]).name
    assert f"no box in {name}, so there is nothing to assign" in message(
        "--index", 2, "--save_dir", tmp_path / "x"
    )
    assert "closest names" in message("--image", "unknown.jpg")
    assert "choose another --save_dir" in message(
        "--index", 0, "--save_dir", Path(dataset.paths[0]).parent
    )
    assert "data.val is empty" in message("--split", "val")
    model = create_model("yolo_fastestv2", 5)
    metadata = CheckpointMetadata(
        "yolo_fastestv2", 5, [], model.input_spec, dict(model.architecture)
    )
    save_checkpoint(tmp_path / "five.ckpt", parameter_values(model), metadata)
    assert "has 5 classes, but" in message("--weight", tmp_path / "five.ckpt")
    assert not (tmp_path / "x").exists()
    with pytest.raises(SystemExit):
        cli.main(["assign", "--config", str(recipe), "--index", "0", "--count", "2"])

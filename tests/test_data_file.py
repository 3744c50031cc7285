"""``--data``: data sets of ultralytics, Roboflow, MindYOLO and darknet in place of the recipe's,
and the recipes that ``new`` writes for them.
"""

import os
import shutil
from pathlib import Path

import pytest
from helpers import Command

from mindyolo_ext.config import load_config
from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.shapes import make_shapes_dataset
from mindyolo_ext.engine.data_file import data_overrides
from mindyolo_ext.errors import DataError, MissingFileError

NAMES = ["circle", "square", "triangle"]
pytestmark = pytest.mark.usefixtures("quiet_logging")


@pytest.fixture(scope="module")
def roboflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train`` and ``valid`` with images and labels each, as in Roboflow's archives."""
    folder = tmp_path_factory.mktemp("data")
    drawn = make_shapes_dataset(
        folder / "drawn", train_images=4, val_images=2, size=(64, 64), progress=False
    )
    made = folder / "set"
    for split, name in (("train", "train"), ("val", "valid")):
        for kind in ("images", "labels"):
            shutil.copytree(drawn / kind / split, made / name / kind)
    return made


def write(roboflow: Path, text: str, name: str = "data.yaml") -> Path:
    path = roboflow / name
    path.write_text(text, encoding="utf-8")
    return path


def read(config, split: str):
    return build_dataset(vars(config.data)[split], config.data.root)


@pytest.mark.parametrize(
    "text",
    [
        # Roboflow: paths of the folder above
        f"train: ../train/images\nval: ../valid/images\nnc: 3\nnames: {NAMES}\n",
        # ultralytics: names by number, path of another machine, of the yaml's folder, absolute
        "path: ../datasets/x\ntrain: train/images\nval: valid/images\n"
        "names: {0: circle, 1: square, 2: triangle}\n",
        f"path: .\ntrain: train/images\nval: valid/images\nnames: {NAMES}\n",
        f"path: HERE\ntrain: [train/images]\nval: valid/images\ntest:\nnames: {NAMES}\n",
        # lists of images, and a key that some exports have
        f"train: train.txt\nvalid: valid.txt\nnames: {NAMES}\n",
        # the data section of a recipe of MindYOLO
        f"data:\n  train_set: train.txt\n  val_set: valid.txt\n  nc: 3\n  names: {NAMES}\n",
    ],
    ids=["roboflow", "elsewhere", "beside", "absolute", "lists", "mindyolo"],
)
def test_a_data_yaml_alone_is_enough(
    roboflow: Path, command: Command, runs: list, text: str, monkeypatch: pytest.MonkeyPatch
):
    file = write(roboflow, text.replace("HERE", str(roboflow)))
    for split in ("train", "valid"):
        images = sorted((roboflow / split / "images").glob("*.jpg"))
        lines = "".join(f"./{split}/images/{image.name}\n" for image in images)
        (roboflow / f"{split}.txt").write_text(lines)
    monkeypatch.chdir(roboflow.parent)
    arguments = ("--model", "yolox-nano", "--epochs", 50, "--data", file.relative_to(os.getcwd()))
    status, output = command("train", *arguments)
    assert status == 0, output
    config, _ = runs.pop()
    train, val = read(config, "train"), read(config, "val")
    assert (len(train), len(val)) == (4, 2) and train.class_names == val.class_names == NAMES
    assert sum(len(train.load(index).boxes) for index in range(4)) > 0
    assert config.train.epochs == 50
    assert config.train.optimizer == load_config("yolox-nano").train.optimizer


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("verb", ["train", "check-data"])
def test_a_folder_stands_for_its_data_yaml(roboflow: Path, command: Command, verb: str):
    write(roboflow, f"train: ../train/images\nval: ../valid/images\nnames: {NAMES}\n")
    arguments = ("--model", "yolox-nano") if verb == "train" else ()
    status, output = command(verb, *arguments, "--data", roboflow)
    assert status == 0, output
    assert verb == "train" or "ready for training" in output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: train/images\nval: valid/images\nnc: 2\nnames: [a, b, c]\n", "nc is 2, but names"),
        ("train: nowhere\nval: nowhere\nnames: [a]\n", "no such file or folder: nowhere"),
        ("model: {name: yolox_s}\ntrain: {epochs: 3}\n", "pass a recipe with --config"),
        ("- 1\n", "wanted the keys train, val and names, got list"),
        ("train: train/images\nnames: [a, b, c]\n", "names no images to evaluate on; add val:"),
    ],
)
def test_a_data_yaml_with_a_fault(
    roboflow: Path, command: Command, runs: list, text: str, message: str
):
    file = write(roboflow, text, "faulty.yaml")
    verb = "train" if "to evaluate on" in message else "check-data"
    status, output = command(verb, "--model", "yolox-nano", "--data", file)
    assert status == 1 and message in output and not runs
    if verb == "train":
        assert command(verb, "--model", "yolox-nano", "--data", file, "--run_eval", False)[0] == 0


def test_files_that_are_not_there(tmp_path: Path):
    with pytest.raises(MissingFileError, match="--data .*none.yaml: no such file"):
        data_overrides(str(tmp_path / "none.yaml"))
    with pytest.raises(MissingFileError, match=r"wanted a data.yaml in this folder"):
        data_overrides(str(tmp_path))
    (tmp_path / "data.yaml").write_text("x: 1\n")
    with pytest.raises(DataError, match=r"wanted the keys train, val and names, got \['x'\]"):
        data_overrides(str(tmp_path))


def test_outlines_are_kept_where_the_recipe_wants_them(
    roboflow: Path, command: Command, runs: list
):
    write(roboflow, f"train: ../train/images\nval: ../valid/images\nnames: {NAMES}\n")
    assert command("train", "--config", "dy-yolov7-step1", "--data", roboflow)[0] == 0
    assert runs.pop()[0].data.train["polygons"] is True


# ---- new -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["data.yaml", "."])
def test_a_new_recipe_reads_its_data_from_anywhere(
    roboflow: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str
):
    write(roboflow, f"train: ../train/images\nval: ../valid/images\nnames: {NAMES}\n")
    monkeypatch.chdir(roboflow)
    mine = tmp_path / "my recipe.yaml"
    status, output = command("new", mine, "--model", "yolox-nano", "--data", data)
    assert status == 0, output
    monkeypatch.chdir("/")
    config, text = load_config(mine), mine.read_text(encoding="utf-8")
    assert len(read(config, "train")) == 4 and len(read(config, "val")) == 2
    base = load_config("yolox-nano")
    assert (config.model, config.train, config.input) == (base.model, base.train, base.input)
    assert "3 classes: circle, square, triangle" in text and f"--config '{mine}'" in text
    assert text in output


def test_a_new_recipe_is_never_written_over_a_file(command: Command, tmp_path: Path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("train: {epochs: 3}\n")
    status, output = command("new", mine, "--model", "yolox-nano")
    assert status == 1 and "already exists and is never overwritten" in output
    assert mine.read_text() == "train: {epochs: 3}\n"
    status, output = command("new", tmp_path / "mine.txt", "--model", "yolox-nano")
    assert status == 1 and "wanted a name that ends in .yaml" in output
    assert os.listdir(tmp_path) == ["mine.yaml"]


@pytest.mark.parametrize("model", ["yolo_fastestv2", "gold_yolo_s", "dy_yolov7", "yolox-x"])
def test_a_new_recipe_without_data_is_its_base(command: Command, tmp_path: Path, model: str):
    mine = tmp_path / "mine.yaml"
    assert command("new", mine, "--model", model)[0] == 0
    config = load_config(mine)
    assert config.model.name == model.replace("-", "_")
    base = load_config(mine.read_text().partition("__BASE__: ")[2].split()[0])
    assert (config.train, config.data) == (base.train, base.data)

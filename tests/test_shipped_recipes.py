"""Recipes by name, from any folder, in a clone and in a wheel."""

import subprocess
import sys
from pathlib import Path

import pytest
from launching import ROOT, environment

from mindyolo_ext.config import load_config
from mindyolo_ext.config.shipped import (
    find_recipe,
    headline,
    recipe_folder,
    recipe_of_model,
    shipped_recipes,
)
from mindyolo_ext.errors import MissingFileError, UsageError
from mindyolo_ext.models.registry import list_models

RECIPE = ROOT / "configs" / "yolox" / "yolox-s.yaml"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "text",
    [
        "yolox-s",
        "yolox-s.yaml",
        "yolox_s",
        "YOLOX-S",
        "yolox/yolox-s",
        "yolox/yolox-s.yaml",
        "configs/yolox/yolox-s.yaml",
        "./configs/yolox/yolox-s.yaml",
    ],
)
def test_names_of_a_shipped_recipe(text: str):
    assert find_recipe(text) == RECIPE


def test_a_file_comes_before_a_name(folder: Path):
    own = folder / "yolox-s.yaml"
    own.write_text("train: {epochs: 7}\n")
    assert find_recipe("yolox-s") == find_recipe("yolox-s.yaml") == Path("yolox-s.yaml")
    assert load_config("yolox-s").train.epochs == 7
    assert find_recipe("yolox/yolox-s") == RECIPE


@pytest.mark.usefixtures("folder")
def test_a_path_is_no_name():
    for text in ("mine/yolox-s.yaml", "/yolox/yolox-s.yaml", "../yolox/yolox-s.yaml"):
        with pytest.raises(MissingFileError, match="did you mean yolox/yolox-s"):
            find_recipe(text)


def test_a_base_in_another_folder(folder: Path):
    mine = folder / "mine.yaml"
    mine.write_text("__BASE__: [yolox/yolox-s.yaml, configs/ascend.yaml]\ntrain: {epochs: 9}\n")
    config = load_config(mine)
    assert (config.model.name, config.train.epochs, config.train.amp_level) == ("yolox_s", 9, "O2")
    assert config.train.optimizer == load_config(RECIPE).train.optimizer


def test_a_base_beside_the_file_comes_first(folder: Path):
    (folder / "sub" / "yolox").mkdir(parents=True)
    (folder / "sub" / "yolox" / "yolox-s.yaml").write_text("train: {epochs: 5}\n")
    (folder / "sub" / "mine.yaml").write_text("__BASE__: yolox/yolox-s.yaml\n")
    assert load_config(folder / "sub" / "mine.yaml").train.epochs == 5


@pytest.mark.parametrize(
    ("base", "error", "message"),
    [
        ("base.yaml", UsageError, "dynamicdet/base and gold_yolo/base"),
        (
            "yolox/yolox-ss.yaml",
            MissingFileError,
            r"named by mine.yaml\), did you mean yolox/yolox",
        ),
    ],
)
def test_a_base_that_is_not_found(folder: Path, base: str, error: type[Exception], message: str):
    (folder / "mine.yaml").write_text(f"__BASE__: {base}\n")
    with pytest.raises(error, match=message):
        load_config("mine.yaml")


def test_a_second_step_in_another_folder(folder: Path):
    (folder / "mine.yaml").write_text(
        "__BASE__: gold_yolo/gold_yolo-s\n"
        "train: {distill: {teacher: t.ckpt, recipe: gold_yolo/gold_yolo-s-distill.yaml}}\n"
    )
    plain = load_config("gold_yolo/gold_yolo-s", ["train.distill.teacher=t.ckpt"])
    assert load_config("mine.yaml") == plain


@pytest.mark.parametrize("model", [m for m in list_models() if m != "simple_yolo_resnet101"])
def test_every_model_has_a_recipe(model: str):
    assert load_config(recipe_of_model(model, list_models())).model.name == model


def test_models_that_are_not_there():
    with pytest.raises(UsageError, match="has no shipped recipe; use --config"):
        recipe_of_model("simple_yolo_resnet101", list_models())
    with pytest.raises(UsageError, match="did you mean gold_yolo_s?"):
        recipe_of_model("gold-yolos", list_models())


def test_headlines_are_one_sentence():
    assert headline("yolox/yolox-s") == "YOLOX-S on COCO, 640 x 640"
    for name in shipped_recipes():
        assert 5 < len(headline(name)) < 250 and "\n" not in headline(name), name


def test_a_wheel_holds_recipes_and_deploy_programs(tmp_path: Path):
    """Built as pip does it, and used without the clone; ``make test-wheel`` tests more."""
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    said = subprocess.run(
        [sys.executable, "-m", "mindyolo_ext.cli", "recipe", "--config", "yolox-nano-bccd"],
        cwd=tmp_path / "mindyolo_ext" / "data",
        env={**environment(), "PYTHONPATH": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "name: yolox_nano" in said and "names: [RBC, WBC, Platelets]" in said
    inside = tmp_path / "mindyolo_ext" / "configs"
    every = {path.relative_to(inside) for path in inside.rglob("*.*")}
    assert every == {path.relative_to(recipe_folder()) for path in recipe_folder().rglob("*.*")}
    programs = {path.name for path in (tmp_path / "mindyolo_ext" / "deploy").glob("*.py")}
    assert programs == {path.name for path in (ROOT / "deploy").glob("*.py")}

"""Recipes: inheritance, overrides and the errors that users see."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from mindyolo_ext.config import Config, config_from_mapping, load_config, override
from mindyolo_ext.config.describe import find_settings, markdown, recipe_text, settings, table
from mindyolo_ext.data.augment.registry import list_augmentations
from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.engine.build import training_pipeline
from mindyolo_ext.errors import ConfigError, MissingFileError
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.registry import list_models, load_augmentations

RECIPES = Path(__file__).resolve().parent.parent / "configs"
YOLOX = {"nano": 416, "tiny": 416, "s": 640, "m": 640, "l": 640, "x": 640, "darknet53": 640}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_later_wins_mappings_merge_lists_replace(tmp_path):
    write(
        tmp_path,
        "base.yaml",
        "model: {name: a, keywords: {x: 1, y: 2}}\ndata: {augment: [{name: one}]}\n"
        "train: {epochs: 5, optimizer: {lr: 0.1}}\n",
    )
    path = write(
        tmp_path,
        "child.yaml",
        "__BASE__: base.yaml\nmodel: {keywords: {y: 3}}\n"
        "data: {augment: [{name: two}]}\ntrain: {optimizer: {momentum: 0.5}}\n",
    )
    config = load_config(
        path, ["train.optimizer.lr=1e-3", "data.root=/tmp/x", "eval.metrics=[darknet]"]
    )
    assert config.model.keywords == {"x": 1, "y": 3}
    assert config.data.augment == [{"name": "two"}]
    assert (config.train.epochs, config.train.optimizer.lr, config.train.optimizer.momentum) == (
        5,
        0.001,
        0.5,
    )
    assert config.data.root == "/tmp/x" and config.eval.metrics == ["darknet"]


def test_saved_recipe_reads_back_the_same(tmp_path):
    config = load_config(
        write(tmp_path, "a.yaml", "train: {stages: [{from_epoch: 3, loss: {l1: true}}]}\n")
    )
    assert load_config(write(tmp_path, "b.yaml", config.to_yaml())) == config
    assert config.train.stages[0].from_epoch == 3


@pytest.mark.parametrize(
    "text, message",
    [
        ("train: {epoch: 3}", r"a.yaml:1: unknown key train.epoch, did you mean train.epochs\?"),
        (
            "train: {optimizer: {learning: 3}}",
            "unknown key train.optimizer.learning; known: name, lr,",
        ),
        ("train: {epochs: many}", "train.epochs wanted an integer, got 'many'"),
        ("train: {epochs: true}", "train.epochs wanted an integer, got True"),
        ("train: 3", "a.yaml:1: train wanted a section, got 3"),
        ("data: {augment: 3}", "data.augment wanted a list, got 3"),
        ("train: {epochs: 1, epochs: 2}", "duplicate key 'epochs'"),
        ("- 1", "wanted sections at the top level"),
        ("a: [", r"a.yaml:\d: wanted YAML: "),
        ("a: [" * 3000, "a.yaml:1: wanted YAML: nested more than 50 deep"),
        ("train: {epochs: 0x" + "f" * 400 + "}", "a.yaml:1: .*an integer of 1600 bits"),
        ("model: {name: !!python/name:os.system }", "a.yaml:1: wanted YAML: a plain value, got"),
        ("data: {cache: 2024-13-45}", "a.yaml:1: wanted YAML: month must be in 1..12"),
        ("__BASE__: 3", "a.yaml:1: __BASE__ wanted a file or a list of files, got 3"),
        (
            "__BASE__: [a, 3]",
            r"__BASE__ wanted a file or a list of files, got \['a', 3\]",
        ),
        ("\ufeffa: \x07", "a.yaml: wanted YAML, got|a.yaml:1: wanted YAML"),
        ('model: "\\e[2J"', r"model wanted a section, got '\\x1b\[2J'"),
        ("data: {cache: maybe}", "data.cache wanted one of none, ram, disk, got 'maybe'"),
        (
            "train: {stages: [{from_epoch: -1, eval_interval: 0}]}",
            "eval_interval wanted at least 1, got 0",
        ),
        ("train: {eval_interval: 0}", "train.eval_interval wanted at least 1, got 0"),
        ("train: {stages: [{from: 3}]}", r"unknown key train.stages\[0\].from"),
        (
            "train:\n  epochs: 3\n  schedule: {decay: cosin}",
            r"a.yaml:3: train.schedule.decay wanted one of .*, got 'cosin', did you mean cosine\?",
        ),
        ("train: {amp_level: O4}", "a.yaml:1: train.amp_level wanted one of O0, O1, O2, O3, got"),
        ("input: {color: rbg}", "input.color wanted one of bgr, rgb, got 'rbg', did you mean"),
        ("input: {size: [640]}", r"input.size wanted 2 numbers, got \[640\]"),
        ("eval: {conf_thres: 2}", "eval.conf_thres wanted a number from 0 to 1, got 2"),
        ("train: {per_batch_size: 0}", "train.per_batch_size wanted at least 1, got 0"),
        ("train: {optimizer: {lr: .nan}}", "train.optimizer.lr wanted at least 0, got nan"),
        ("train: {optimizer: {betas: [0.9, x]}}", r"betas\[1\] wanted a number, got 'x'"),
        ("data: {augment: [{scale: 2}]}", r"data.augment\[0\] wanted a name, or a mapping with"),
        ("model: {keywords: [1]}", "model.keywords wanted a mapping, got"),
        (
            "train:\n  stages:\n  - {from_epoch: 1}\n  - from_epoch: 2\n    eval_interval: 0",
            r"a.yaml:5: train.stages\[1\].eval_interval wanted at least 1, got 0",
        ),
    ],
)
def test_wrong_recipes_say_where_and_what(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_config(write(tmp_path, "a.yaml", text))


def test_missing_and_circular_parents(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_config(tmp_path / "none.yaml")
    write(tmp_path, "a.yaml", "__BASE__: b.yaml")
    write(tmp_path, "b.yaml", "__BASE__: [a.yaml]")
    with pytest.raises(ValueError, match="includes itself"):
        load_config(tmp_path / "a.yaml")


def test_override_after_loading(tmp_path):
    config = load_config(write(tmp_path, "a.yaml", ""))
    assert override(config, ["train.epochs=7"]).train.epochs == 7
    with pytest.raises(ValueError, match="wanted section.key=value"):
        override(config, ["train.epochs"])


def test_another_data_format_replaces_the_description(tmp_path):
    path = write(tmp_path, "a.yaml", "data: {val: {format: coco, images: a, annotations: b}}")
    assert load_config(path, ["data.val.images=c"]).data.val == {
        "format": "coco",
        "images": "c",
        "annotations": "b",
    }
    replaced = load_config(path, ["data.val={format: darknet, data: x.data, split: val}"]).data.val
    assert replaced == {"format": "darknet", "data": "x.data", "split": "val"}


def test_errors_name_the_file_that_says_so(tmp_path):
    write(tmp_path, "base.yaml", "train:\n  best_metric: mAP")
    child = write(tmp_path, "child.yaml", "__BASE__: base.yaml\ntrain: {epochs: 3}")
    with pytest.raises(ValueError, match="base.yaml:2: train.best_metric wanted one of AP, AP50"):
        load_config(child)
    assert load_config(child, ["train.best_metric=AP50"]).train.best_metric == "AP50"
    with pytest.raises(ValueError, match="^--set: train.epochs wanted an integer, got 'x'"):
        load_config(child, ["train.best_metric=AP", "train.epochs=x"])
    with pytest.raises(ValueError, match="^--set: train.ema_ramp wanted one of"):
        override(Config(), ["train.ema_ramp=cubic"])


def test_recipes_of_old_runs_still_read(tmp_path):
    """They contain every key, with negative numbers for unset ones."""
    old = "{warmup_start_ratio: 0.0, warmup_bias_lr: -1.0, warmup_momentum: -1.0}"
    config = load_config(write(tmp_path, "a.yaml", f"train: {{schedule: {old}}}"))
    assert config == Config()
    with pytest.raises(ValueError, match="unknown key train.schedule.warmup_start_ratio"):
        config_from_mapping({"train": {"schedule": {"warmup_start_ratio": 0.1}}})


# ---- settings --------------------------------------------------------------------------------


def test_every_setting_has_a_sentence():
    found = settings()
    assert len(found) > 90 and len({s.name for s in found}) == len(found)
    for setting in found:
        assert re.fullmatch(r"\S.*\.", setting.sentence), setting
        assert 15 < len(setting.sentence) < 200, setting
        assert setting.kind and setting.default, setting


def test_a_setting_and_a_section_are_found():
    text = table("train.schedule.decay")
    assert text.splitlines()[0] == (
        "train.schedule.decay: constant | multistep | step | cosine | linear | one_cycle = constant"
    )
    assert [s.name for s in find_settings("train.distill")] == [
        "train.distill.teacher",
        "train.distill.recipe",
    ]
    assert {s.name for s in find_settings("train.stages")} >= {
        "train.stages",
        "train.stages[].from_epoch",
    }
    with pytest.raises(ValueError, match="did you mean train.schedule.decay?"):
        find_settings("train.schedule.decai")
    with pytest.raises(ValueError, match="lists all"):
        find_settings("xyzzy")


def test_the_page_of_settings_is_up_to_date():
    page = RECIPES.parent / "docs" / "recipe.md"
    assert page.read_text(encoding="utf-8") == markdown(), (
        "run `mindyolo-ext recipe --markdown > docs/recipe.md`"
    )


def test_the_docs_name_settings_that_exist():
    known = {s.name for s in settings()}
    sections = {name.rpartition(".")[0].removesuffix("[]") for name in known}
    wrong = []
    for page in sorted((RECIPES.parent / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for name in re.findall(
            r"(?:`|--set )((?:input|train|eval)\.[a-z_.]*[a-z_])(?=[`=:])", text
        ):
            if name.endswith(".py") or name.startswith("train.loss."):
                continue
            if name not in known and name not in sections:
                wrong.append(f"{page.name}: {name}")
    assert wrong == []


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_a_printed_recipe_reads_back_the_same(path, tmp_path):
    config = load_config(path)
    text = recipe_text(config, {"train.epochs": "a note"})
    assert "  # a note\n" in text and "max_detections" in text
    assert load_config(write(tmp_path, "a.yaml", text)) == config
    assert load_config(write(tmp_path, "b.yaml", config.to_yaml())) == config


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_loads_and_its_steps_exist(path):
    config = load_config(path)
    for steps in (config.data.augment, *(stage.augment or [] for stage in config.train.stages)):
        training_pipeline(steps, InputSpec(), SimpleNamespace(has_polygons=True, name="toy"))
    assert path.read_text(encoding="utf-8").startswith("# ")
    if config.model.name:
        assert config.model.name in list_models()
        step = {"distill": "_distill", "step2": "_router"}.get(path.stem.rpartition("-")[2], "")
        assert config.train.loss["name"] == f"{path.parent.name}{step}_loss"


def test_every_step_is_in_a_recipe():
    load_augmentations()
    used = {
        "resize",
        "copy_paste",
        "albumentations",
    }  # need outlines, and an optional package
    for path in RECIPES.rglob("*.yaml"):
        config = load_config(path)
        for steps in (config.data.augment, *(stage.augment or [] for stage in config.train.stages)):
            used |= {step if isinstance(step, str) else step["name"] for step in steps}
    assert used == set(list_augmentations())


@pytest.mark.parametrize(("scale", "size"), YOLOX.items())
def test_yolox_recipes(scale, size):
    config = load_config(RECIPES / "yolox" / f"yolox-{scale}.yaml")
    mosaic, colours = config.data.augment
    assert config.model.name == f"yolox_{scale}" and config.input.size == [size, size]
    assert mosaic["probability"] == (0.5 if scale == "nano" else 1.0)
    assert mosaic["scale"] == ([0.5, 1.5] if size == 416 else [0.1, 2.0])
    assert mosaic["mixup_probability"] == (0.0 if size == 416 else 1.0)
    assert colours == {"name": "yolox_hsv_flip", "max_boxes": 120}
    low, high = (10, 20) if size == 416 else (15, 25)
    assert config.train.multi_scale == [32 * step for step in range(low, high + 1)]
    optimizer = config.train.optimizer
    assert (
        optimizer.lr * 64 == 0.01
        and optimizer.lr_per_image
        and optimizer.nesterov
        and optimizer.groups == "by_kind"
    )
    assert (config.eval.conf_thres, config.eval.iou_thres, config.eval.clip) == (0.01, 0.65, False)
    header = (
        (RECIPES / "yolox" / f"yolox-{scale}.yaml")
        .read_text(encoding="utf-8")
        .partition("__BASE__")[0]
    )
    assert (
        f"{size} x {size}" in header
        and "% mAP" in header
        and f"configs/yolox/yolox-{scale}.yaml" in header
    )


def test_a_voc_recipe_replaces_the_coco_description(shared):
    config = load_config(
        RECIPES / "yolox" / "yolox-nano-bccd.yaml", [f"data.root={shared / 'data' / 'bccd'}"]
    )
    train, val = (
        build_dataset(description, config.data.root)
        for description in (config.data.train, config.data.val)
    )
    assert (len(train), len(val)) == (205, 87) and train.class_names == ["RBC", "WBC", "Platelets"]
    assert training_pipeline(config.data.augment, InputSpec(), train).max_boxes == 120


def test_a_recipe_in_another_encoding_is_told(tmp_path):
    (tmp_path / "a.yaml").write_bytes("data: {root: café}".encode("latin-1"))
    with pytest.raises(ConfigError, match="a.yaml: wanted UTF-8 text, got byte 0xe9 at 16"):
        load_config(tmp_path / "a.yaml")


@pytest.mark.parametrize("base", ["x" * 300, "a\\0b", "\\e[2J"])
def test_parents_that_cannot_be_there(tmp_path, base):
    with pytest.raises(MissingFileError, match=r"no such file \(named by .*a.yaml") as caught:
        load_config(write(tmp_path, "a.yaml", f'__BASE__: "{base}"'))
    assert str(caught.value).isprintable()


def test_words_serve_as_switches_and_stay_names(tmp_path):
    text = "data: {cache: yes, class_names: [yes, no, on]}"
    data = load_config(write(tmp_path, "a.yaml", text)).data
    assert data.cache == "ram" and data.class_names == ["yes", "no", "on"]


def test_a_recipe_is_shown_without_control_characters(tmp_path):
    config = load_config(write(tmp_path, "a.yaml", 'data: {root: "caf\u00e9/\u202egpj"}'))
    lines = recipe_text(config).splitlines()
    assert all(line.isprintable() for line in lines)
    again = load_config(write(tmp_path, "b.yaml", "\n".join(lines)))
    assert again.data.root == "café/\u202egpj"


@pytest.mark.parametrize("parents", ["{0}.yaml", "[{0}.yaml, {0}.yaml]"])
def test_a_recipe_of_many_files(tmp_path, parents):
    for number in range(30):
        write(tmp_path, f"{number}.yaml", f"__BASE__: {parents.format(number + 1)}")
    with pytest.raises(ConfigError, match="0.yaml: __BASE__ leads to more than 20 files"):
        load_config(tmp_path / "0.yaml")

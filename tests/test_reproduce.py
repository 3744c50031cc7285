"""``mindyolo-ext reproduce``: protocols of the records, goals, comparison, and the complete command
on stand-in weights of every family.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import Command, original_name, quick_cases
from seeded import seeded_tensor

from mindyolo_ext.backend.launch import set_seed
from mindyolo_ext.backend.parameters import parameter_values
from mindyolo_ext.checkpoint.convert import export_torch
from mindyolo_ext.checkpoint.store import CheckpointMetadata, save_checkpoint
from mindyolo_ext.config import load_config
from mindyolo_ext.config.shipped import recipe_of_model
from mindyolo_ext.contracts import Family
from mindyolo_ext.engine.reproduce import Goal, check_images, compared, goal_of, misfit
from mindyolo_ext.errors import DataError, MissingFileError, UsageError
from mindyolo_ext.models.registry import create_model, families, family_of, list_models, variant

FAMILIES = list(families().values())
SIDE = 64
CLASSES = 3
CONFIDENCE = 0.001  # fresh weights find boxes above it
# Where a protocol differs from the shipped recipe of the family's smallest published model
UNLIKE_RECIPE = {
    "yolox": {"eval.conf_thres"},
    "dynamicdet": {"eval.rectangular", "eval.per_batch_size"},
}
by_family = pytest.mark.parametrize("record", FAMILIES, ids=lambda record: record.name)
pytestmark = pytest.mark.usefixtures("quiet_logging")


def published_model(record: Family) -> str:
    """The smallest model with a published number."""
    facts = set(record.protocols[0].numbers)
    return next(name for name, its in record.variants.items() if facts <= set(its.published))


# ---- protocols -----------------------------------------------------------------------------------


@by_family
def test_every_published_ap_of_val_has_a_protocol(record: Family):
    facts = {fact for protocol in record.protocols for fact in protocol.numbers}
    published = {fact for its in record.variants.values() for fact in its.published}
    assert facts == {fact for fact in published if "AP" in fact and "test-dev" not in fact}


@by_family
def test_a_protocol_is_the_recipes_evaluation(record: Family):
    protocol, model = record.protocols[0], published_model(record)
    recipe = recipe_of_model(model, list_models())
    texts = [f"{key}={json.dumps(value)}" for key, value in protocol.settings.items()]
    before, after = (vars(load_config(recipe, its).eval) for its in ([], texts))
    changed = {f"eval.{key}" for key in before if before[key] != after[key]}
    assert changed == UNLIKE_RECIPE.get(record.name, set())
    size = load_config(recipe).input.size
    assert not size or tuple(size) == variant(model).input_size


def metadata_of(model: str, **changes: object) -> CheckpointMetadata:
    """The metadata in the published weights of a model."""
    keywords = dict(family_of(model).protocols[0].architecture)
    built = create_model(model, num_classes=80, **keywords)
    metadata = CheckpointMetadata(
        model, 80, [], built.input_spec, {**built.architecture, **keywords}
    )
    return replace(metadata, **changes)


# ---- goals ---------------------------------------------------------------------------------------


def test_the_goal_is_what_the_authors_publish():
    goal = goal_of(metadata_of("yolox_nano"), None, where="w.pth")
    assert goal.wanted == {"AP": 25.8} and goal.images == 5000
    assert goal.settings["eval.conf_thres"] == 0.001
    goal = goal_of(metadata_of("yolo_fastestv2"), None, where="w.pth")
    assert goal.wanted == {"own_AP50": 24.10}


def test_weights_of_another_input_have_another_number_or_none():
    from mindyolo_ext.models.yolox.variants import legacy_input, mindyolo_input

    size = (416, 416)
    of_mindyolo = metadata_of("yolox_nano", input_spec=mindyolo_input(size))
    goal = goal_of(of_mindyolo, None, where="w.ckpt")
    assert goal.wanted == {"AP": 24.1} and goal.settings["eval.multi_label"] is True
    legacy = metadata_of("yolox_nano", input_spec=legacy_input(size))
    with pytest.raises(UsageError, match=r"w\.pth: no published number .* input official"):
        goal_of(legacy, None, where="w.pth")
    assert goal_of(legacy, "25.3", where="w.pth").wanted == {"AP": 25.3}


def test_published_numbers_are_of_one_architecture():
    metadata = metadata_of("simple_yolo_resnet18")
    protocol = family_of("simple_yolo_resnet18").protocols[0]
    assert misfit(protocol, metadata) == ""
    narrow = replace(metadata, architecture={**metadata.architecture, "channel_sparsity": 0.25})
    assert "channel_sparsity 0.75, not 0.25" in misfit(protocol, narrow)


@pytest.mark.parametrize(
    ("reference", "kind", "text"),
    [
        ("101", UsageError, "wanted a number in percent"),
        ("nan", UsageError, "wanted a number in percent"),
        ("nowhere.json", MissingFileError, "neither an existing file nor a number"),
        ("broken.json", DataError, "is not JSON"),
        ("list.json", DataError, "wanted a mapping"),
        ("two.json", UsageError, "got yolox_nano_a, yolox_nano_b"),
        ("two.json:yolox_nano_c", UsageError, "did you mean yolox_nano_"),
        ("two.json:yolox_nano_a", DataError, "'?mAP'? is not one of the measured numbers"),
        ("two.json:yolox_nano_b", DataError, "AP wanted a number in 0..1, got 25.8"),
        ("none.json", UsageError, "got none"),
    ],
)
def test_references_that_cannot_be_used(
    tmp_path: Path, reference: str, kind: type[Exception], text: str
):
    for name, content in {
        "broken.json": "{",
        "list.json": "[]",
        "two.json": '{"yolox_nano_a": {"coco": {"mAP": 0.2}}, "yolox_nano_b": {"AP": 25.8}}',
        "none.json": '{"gold": {"AP": 0.3}}',
    }.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    if ".json" in reference:
        reference = str(tmp_path / reference)
    with pytest.raises(kind, match=text):
        goal_of(metadata_of("yolox_nano"), reference, where="w.pth")


def test_a_reference_file_sets_numbers_and_thresholds(tmp_path: Path):
    entry = {
        "conf": 0.01,
        "nms_iou": 0.5,
        "input": [320, 320],
        "images": 7,
        "coco": {"AP": 0.25, "AP50": 0.5},
        "own_metric": {"AP": 0.3},
    }
    file = tmp_path / "numbers.json"
    file.write_text(json.dumps({"dataset": "seven", "yolox_nano_x": entry}), encoding="utf-8")
    goal = goal_of(metadata_of("yolox_nano"), str(file), where="w.pth")
    assert goal.wanted == pytest.approx({"AP": 25, "AP50": 50, "own_AP50": 30})
    assert (goal.images, goal.data) == (7, "seven")
    wanted = {"eval.conf_thres": 0.01, "eval.iou_thres": 0.5, "eval.metrics": ["darknet"]}
    assert wanted.items() <= goal.settings.items() and goal.settings["input.size"] == [320, 320]
    assert goal.settings["eval.multi_label"] is False  # the protocol's


def test_the_tolerance_includes_its_border():
    goal = Goal({"AP": 25.8, "AP50": 40.0}, "", {})
    measured = {"AP": 25.7, "AP50": 40.2, "AP75": 1.0}
    assert [line.passed for line in compared(goal, measured, 0.1)] == [True, False]
    measured["AP50"] = math.nan
    assert [line.passed for line in compared(goal, measured, 0.1)] == [True, False]
    with pytest.raises(DataError, match="needs AP50, which this evaluation does not produce"):
        compared(goal, {"AP": 25.7}, 0.1)


def test_another_number_of_images_is_refused(shapes):
    check_images(Goal({"AP": 1.0}, "", {}, len(shapes)), shapes)
    with pytest.raises(DataError, match="has 19 images, but AP is for the 5000 of COCO val2017"):
        check_images(Goal({"AP": 1.0}, "", {}, 5000, "COCO val2017"), shapes)


# ---- the command ---------------------------------------------------------------------------------


def stand_in(folder: Path, model: str, num_classes: int = CLASSES) -> Path:
    """A file in the format of the family's original, with fresh weights."""
    keywords = dict(family_of(model).protocols[0].architecture)
    set_seed(0)
    built = create_model(model, num_classes=num_classes, **keywords)
    values = parameter_values(built)
    if model == "yolo_fastestv2":  # fresh ones find nothing at all
        values = {
            name: seeded_tensor(original_name(name), array.shape, 0, 1.2)
            for name, array in values.items()
        }
    metadata = CheckpointMetadata(
        model, num_classes, [], built.input_spec, dict(built.architecture)
    )
    own = folder / "stand_in.ckpt"
    save_checkpoint(own, values, metadata)
    export_torch(own, folder / f"{model}.pth")
    return folder / f"{model}.pth"


def arguments(model: str, weights: Path, data: Path, folder: Path, *more: object) -> list[object]:
    """The arguments of the command, on five drawn images."""
    val = "{format: coco, images: images/val, annotations: annotations/val.json}"
    settings = [f"data.val={val}", f"input.size=[{SIDE}, {SIDE}]", "data.workers=0"]
    if not {"yolo_fastestv2"} & {model}:
        settings.append(f"eval.conf_thres={CONFIDENCE}")
    texts = [part for text in settings for part in ("--set", text)]
    own = ["--weights", weights, "--data_root", data, "--save_dir", folder, "--ms_mode", 1]
    return ["reproduce", model, *own, *texts, *more]


@pytest.mark.parametrize(
    "record",
    quick_cases(FAMILIES, [families()["yolox"]], lambda record: record.name),
)
def test_stand_in_weights_of_every_family(
    record: Family, command: Command, shapes_folder: Path, tmp_path: Path
):
    model = record.smallest
    weights, folder = stand_in(tmp_path, model), tmp_path / "out"
    shares = record.name == "dynamicdet"
    wrong = tmp_path / "wrong.json"
    name = "AP, 50 % easy" if shares else "AP"
    wrong.write_text(json.dumps({name: 0.99}), encoding="utf-8")
    call = arguments(model, weights, shapes_folder, folder)
    status, output = command(*call, "--reference", wrong)
    assert status == 1 and f"error: {model}: beyond 0.1 points: {name}" in output, output
    assert "Traceback" not in output
    found = json.loads((folder / "reproduce.json").read_text(encoding="utf-8"))
    text = (folder / "reproduce.md").read_text(encoding="utf-8")
    assert found["passed"] is False and "NOT reproduced" in text and "| NO " in text
    assert found["data"]["images"] == "5" and found["weights"]["SHA-256"] in text
    assert (folder / f"{model}.ckpt").is_file() and (folder / "convert.json").is_file()


@pytest.mark.all_cases
def test_what_test_finds_passes(command: Command, shapes_folder: Path, tmp_path: Path):
    weights, folder = stand_in(tmp_path, "yolo_fastestv2"), tmp_path / "out"
    call = arguments("yolo_fastestv2", weights, shapes_folder, folder)
    reference = tmp_path / "right.json"
    reference.write_text(json.dumps({"images": 5, "AP": 0.0, "AP50": 0.0005}), encoding="utf-8")
    status, output = command(*call, "--reference", reference)
    assert status == 0 and "PASS: yolo_fastestv2: AP 0.0" in output, output
    found = json.loads((folder / "reproduce.json").read_text(encoding="utf-8"))
    assert found["passed"] is True and len(found["lines"]) == 2
    settings = [text for text in call[8:] if text != "--set" and "=" in str(text)]
    texts = [part for text in settings for part in ("--set", text)]
    own = ["--config", "yolo-fastestv2", "--weight", folder / "yolo_fastestv2.ckpt"]
    own += ["--data_root", shapes_folder, "--save_dir", tmp_path / "test", "--ms_mode", 1]
    status, output = command("test", *own, *texts)
    assert status == 0, output
    boxes = [
        json.loads((its / "detections.json").read_text()) for its in (folder, tmp_path / "test")
    ]
    assert boxes[0] == boxes[1] and len(boxes[0]) > 10


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("yolox_nan", "unknown model 'yolox_nan', did you mean yolox_nano?"),
        ("yolox_nano", "holds weights of yolo_fastestv2, not of yolox_nano"),
        ("yolo_fastestv2", "has 5 images, but own_AP50 is for the 5000"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(
    model: str, text: str, command: Command, shapes_folder: Path, tmp_path: Path
):
    weights = stand_in(tmp_path, "yolo_fastestv2")
    status, output = command(*arguments(model, weights, shapes_folder, tmp_path / "out"))
    assert status == 1 and text in output.strip().splitlines()[-1], output
    assert not (tmp_path / "out" / "reproduce.md").exists()


def test_data_and_weights_that_are_not_there(command: Command, tmp_path: Path):
    weights = stand_in(tmp_path, "yolo_fastestv2")
    status, output = command(*arguments("yolo_fastestv2", weights, tmp_path, tmp_path / "out"))
    last = output.strip().splitlines()[-1]
    assert status == 1 and "--data_root must name the folder with COCO val2017" in last
    gone = tmp_path / "gone.pth"
    status, output = command(*arguments("yolo_fastestv2", gone, tmp_path, tmp_path / "out"))
    assert status == 1 and f"--weights {gone}: no such file" in output


@pytest.mark.all_cases
@pytest.mark.parametrize(
    ("model", "file"),
    [
        ("yolo_fastestv2", "yolo_fastestv2/coco2017-0.241078ap-model.pth"),
        ("yolox_nano", "yolox/yolox_nano_0.1.1rc0_bnident.pth"),
    ],
)
def test_published_weights_give_the_numbers_of_the_original(
    model: str, file: str, command: Command, shared: Path, real_data: Path, tmp_path: Path
):
    reference = shared / "reference" / "map_coco_val128.json"
    own = ["--weights", shared / "weights" / file, "--data_root", real_data / "coco_val128"]
    own += ["--reference", reference, "--save_dir", tmp_path, "--tolerance", 0.02]
    status, output = command("reproduce", model, *own)
    assert status == 0 and "PASS" in output, output

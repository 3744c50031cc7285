"""benchmarks/training_truth.py: the inputs of both programs, and the report on their curves."""

import argparse
import csv
import dataclasses
import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from launching import ROOT

from mindyolo_ext.backend import nn
from mindyolo_ext.config import load_config
from mindyolo_ext.data.formats.darknet import parse_data_file
from mindyolo_ext.data.image_file import write_image
from mindyolo_ext.engine.schedule.accumulation import micro_batches, weight_decay


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module."""
    pytest.importorskip("scipy")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("training_truth")


def task_of(program: ModuleType, folder: Path, **changes: object) -> object:
    """A task of 31 epochs on a folder of BCCD's kind with two images per split."""
    data = folder / "bccd"
    for split in ("train", "val"):
        (data / "yolo_labels" / split).mkdir(parents=True)
        for name in ("a", "b"):
            (data / "yolo_labels" / split / f"{name}_{split}.txt").write_text("0 .5 .5 .1 .1\n")
            (data / "JPEGImages").mkdir(exist_ok=True)
            (data / "JPEGImages" / f"{name}_{split}.jpg").write_bytes(b"")
    (data / "classes.names").write_text("RBC\nWBC\nPlatelets\n")
    values = {
        "family": "yolo_fastestv2",
        "folder": folder / "v1.5" / "truth",
        "data": data,
        "start": None,
        "epochs": 31,
        "size": 176,
        "batch": 8,
        "every": 10,
        "rate": 0.002,
        "threads": 1,
    }
    return program.Task(**{**values, **changes})


def test_epochs_of_evaluations(program: ModuleType, tmp_path: Path):
    assert task_of(program, tmp_path / "1").evaluated == [10, 20, 30, 31]
    assert task_of(program, tmp_path / "2", epochs=20).evaluated == [10, 20]


def test_both_programs_get_the_same_settings(program: ModuleType, tmp_path: Path):
    task = task_of(program, tmp_path)
    family = program.FAMILIES["yolo_fastestv2"]
    family.lay_out(task)
    with program.plain_place(task.folder) as place:
        assert "." not in str(place)  # the original cuts a path at its first dot
        file = parse_data_file(family.data_file(task, place, 3))
        assert (file.epochs, file.batch_size, file.learning_rate) == (31, 8, 0.002)
        assert (file.width, file.height, file.subdivisions) == (176, 176, 1)
        assert file.anchors[:2] == pytest.approx((11.08, 14.27), abs=0.01)  # half of 352's
        images = Path(file.train).read_text().split()
        assert [Path(its).name for its in images] == ["a_train.jpg", "b_train.jpg"]
        assert all(Path(its).with_suffix(".txt").is_file() for its in images)
        assert min(file.steps) > file.epochs  # one rate after the warm-up
        falling = dataclasses.replace(task, falls=True)
        assert parse_data_file(family.data_file(falling, place, 3)).steps[0] == 23  # of 31


def test_losses_of_the_original_are_means_of_epochs(program: ModuleType, tmp_path: Path):
    task = task_of(program, tmp_path, epochs=2, family="simple_yolo_all_grid")
    with (tmp_path / "losses.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "total", "conf", "iou", "class"])
        writer.writerows(
            [[0, 4.0, 1, 20, 1], [1, 2.0, 1, 5, 0], [2, 1.0, 0, 6, 0], [3, 0, 0, 0, 0]]
        )
    assert program.original_losses(tmp_path, task) == {
        "loss": [3.0, 0.5],
        "box": pytest.approx([1.25, 0.3]),  # a tenth
        "object": [1.0, 0.0],
        "class": [0.5, 0.0],
    }


def test_curves_sum_our_terms_as_the_original_reports_them(program: ModuleType, tmp_path: Path):
    task = task_of(program, tmp_path, family="gold_yolo_n", epochs=2, every=2)
    folder = task.place("ours", 3) / "run"
    folder.mkdir(parents=True)
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        names = ["epoch", "loss", "iou", "dfl", "class", "iou_ab", "class_ab", "AP", "AP50"]
        writer.writerows([names, [0, 20, 1, 2, 3, 4, 10], [1, 10, 1, 1, 2, 2, 4, 0.25, 0.5]])
    first, last = program.curve(task, "ours", 3)
    assert (first["AP"], first["iou"], first["dfl"], first["class"]) == (None, 5, 2, 13)
    assert (last["AP"], last["AP50"], last["loss"]) == (25, 50, 10)
    assert (last["iou"], last["dfl"], last["class"]) == (3, 1, 6)
    means = program.picked([first, last], "ours", 2, "loss", since=2)
    assert means.tolist() == [15]


def rows_of(values: dict[str, list[float]]) -> list[dict]:
    """Curves of one epoch, 31."""
    return [
        {"side": side, "seed": seed, "epoch": 31, "AP": value, "AP50": 2 * value}
        | dict.fromkeys(("loss", "box", "object", "class"), value)
        for side, its in values.items()
        for seed, value in enumerate(its)
    ]


def test_the_table_says_whether_seeds_explain_the_difference(program: ModuleType, tmp_path: Path):
    task = task_of(program, tmp_path, every=31)
    apart = rows_of({"original": [10.0, 11.0, 12.0], "ours": [20.0, 21.0, 22.0]})
    line = next(x for x in program.report(task, apart, [0, 1, 2]).splitlines() if "| AP " in x)
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[:6] == ["31", "AP", "ours", "11.00 +- 1.00", "21.00 +- 1.00", "+10.00"]
    assert cells[6] == "+7.73 to +12.27"  # 2.776 standard errors of 0.816
    assert float(cells[7]) < 0.001  # t = 12.2 with 4 degrees of freedom
    alike = rows_of({"original": [10.0, 11.0, 12.0], "ours": [12.0, 10.0, 11.5]})
    line = next(x for x in program.report(task, alike, [0, 1, 2]).splitlines() if "| AP " in x)
    assert float(line.split("|")[-2]) > 0.5
    program.write_csv(tmp_path / "rows.csv", apart)
    program.draw(tmp_path / "rows.png", apart, [], task)
    with (tmp_path / "rows.csv").open() as file:
        found = [float(row["AP"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(found, [10, 11, 12, 20, 21, 22])
    assert (tmp_path / "rows.png").stat().st_size > 1000


@pytest.mark.usefixtures("program")  # finds the module
def test_the_table_of_trainings_is_up_to_date():
    summary = importlib.import_module("truth_summary")
    page = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")
    assert page == summary.with_summary(page, ROOT / "benchmarks" / "results")


@pytest.mark.usefixtures("program")
def test_equal_seeds_have_no_test():
    summary = importlib.import_module("truth_summary")
    cells = summary.compared(np.array([30.92, 30.92]), np.array([30.9, 30.9]))
    assert cells == ("30.92 +- 0.00", "30.90 +- 0.00", "-0.02", "-", "-")


def test_the_end_of_a_training_is_its_last_epochs(program: ModuleType, tmp_path: Path):
    summary = importlib.import_module("truth_summary")
    rows = [
        {"side": side, "seed": seed, "epoch": epoch, "AP": ap if epoch == 7 else None}
        | {"AP50": 2 * ap if epoch == 7 else None, "loss": scale * loss}
        for side, seed, ap, scale in (
            ("original", 1, 10.0, 1),
            ("original", 2, 12.0, 2),
            ("ours", 1, 11.0, 1),
            ("ours", 2, 11.5, 3),
        )
        for epoch, loss in enumerate((90, 80, 5, 4, 3, 2, 1), 1)
    ]
    program.write_csv(tmp_path / "truth_yolox.csv", rows)
    lines = summary.summary(tmp_path).splitlines()[2:]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[0][:6] == ["`yolox`", "7", "2", "AP", "11.00 +- 1.41", "11.25 +- 0.35"]
    assert cells[1][:5] == ["", "", "", "AP50", "22.00 +- 2.83"]
    assert cells[2][3:6] == ["loss", "4.50 +- 2.12", "6.00 +- 4.24"]  # of 5 epochs, 3 on average


def test_a_job_of_the_original_names_what_is_to_be_kept(program: ModuleType, tmp_path: Path):
    task = task_of(program, tmp_path)
    options = type("Options", (), {"repo": tmp_path, "torch_python": Path("python3")})
    command = program.original_command(task, Path("/truth"), 7, options)
    job = json.loads(Path(command[-1]).read_text())
    assert (job["seed"], job["every"], job["epochs"]) == (7, 10, 31)
    assert job["data"] == "/truth/seed_7.data"
    assert Path(command[1]).is_file() and command[2] == "yolo_fastestv2"


def test_runs_of_other_settings_are_not_mixed(program: ModuleType, tmp_path: Path):
    task = task_of(program, tmp_path)
    program.keep_settings(task)
    program.keep_settings(task)
    with pytest.raises(SystemExit, match="holds runs with batch 8, not 16; take another"):
        program.keep_settings(dataclasses.replace(task, batch=16))


def test_yolox_gets_the_same_data_and_schedule(program: ModuleType, tmp_path: Path):
    task = task_of(program, tmp_path, family="yolox", epochs=20, rate=0.02, batch=2)
    for image in (task.data / "JPEGImages").iterdir():
        write_image(image, np.zeros((8, 12, 3), np.uint8))
    family = program.FAMILIES["yolox"]
    family.lay_out(task)
    truth = json.loads((task.folder / "data" / "annotations" / "val.json").read_text())
    assert [its["file_name"] for its in truth["images"]] == ["a_val.jpg", "b_val.jpg"]
    assert truth["annotations"][0]["bbox"] == pytest.approx([5.4, 3.6, 1.2, 0.8])
    job = family.job(task, task.folder, 1)["settings"]
    config = load_config(family.recipe, family.settings(task, task.folder, 1))
    assert config.train.epochs == job["max_epoch"] == 20
    assert (
        config.train.optimizer.lr == job["basic_lr_per_img"] and config.train.optimizer.lr_per_image
    )
    assert config.train.schedule.flat_epochs == job["no_aug_epochs"] == 4
    assert config.train.stages[0].from_epoch == -5  # one more, as in the original
    assert (config.input.size, config.train.multi_scale) == ([176, 176], [])


@pytest.mark.parametrize("assignment", ["single_grid", "nearby_grid", "all_grid"])
def test_simple_yolo_gets_the_same_splits_and_settings(
    program: ModuleType, tmp_path: Path, assignment: str
):
    name = f"simple_yolo_{assignment}"
    task = task_of(program, tmp_path, family=name, epochs=20, rate=0.002)
    sets = task.data / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    for split in ("train", "val"):
        (sets / f"{split}.txt").write_text(f"a_{split}\n")
    family = program.FAMILIES[name]
    family.lay_out(task)
    theirs = task.folder / "data" / "VOC2007"
    assert (theirs / "ImageSets" / "Main" / "trainval.txt").read_text() == "a_train\n"
    assert (theirs / "ImageSets" / "Main" / "test.txt").read_text() == "a_val\n"
    assert (theirs / "JPEGImages" / "a_val.jpg").is_file()
    job = family.job(task, task.folder, 3)["settings"]
    config = load_config(family.recipe, family.settings(task, task.folder, 3))
    assert (config.train.epochs, config.train.per_batch_size) == (job["total_epoch"], 8)
    assert job["base_lr"] == pytest.approx(0.02)  # Adam takes a tenth
    assert (config.train.optimizer.lr, config.train.optimizer.lr_per_image) == (0.002, False)
    assert config.model.keywords["assignment"] == job["label_assignment_method"] == assignment
    assert config.input.size == job["img_size"] == [176, 176]
    assert family.keywords(task) == {"channel_sparsity": 0.25, "assignment": assignment}


def test_the_curve_of_a_router_is_drawn_over_the_share(program: ModuleType, tmp_path: Path):
    task = task_of(program, tmp_path, family="dynamicdet_w0125_step2", batch=1, every=31)
    rows = [
        {"side": side, "seed": 1, "easy": easy + 0.004, "threshold": easy, "AP": 0.2, "AP50": 0.4}
        for side in ("original", "ours")
        for easy in (0.0, 0.5, 1.0)
    ]
    program.draw(tmp_path / "curve.png", [], rows, task)
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_thresholds_of_the_original_stand_beside_ours(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    start = tmp_path / "step1.pth"
    task = task_of(program, tmp_path, family="dynamicdet_w0125_step2", batch=1, start=start)
    options = type("Options", (), {"repo": tmp_path, "torch_python": Path("p"), "seeds": [4]})
    task.place("original", 4).mkdir(parents=True)

    def run(command: list[str], folder: Path, *_: object) -> None:
        job = json.loads(Path(command[-1]).read_text())
        assert command[2] == "dynamicdet_thresholds" and job["step"] == 2
        assert job["weights"].endswith("original/seed_4/epoch_031.pth")
        (folder / "thresholds.json").write_text("[0, 0.25, 1]")

    monkeypatch.setattr(program, "run_logged", run)
    ours = [{"side": "original", "seed": 4, "threshold": value} for value in (0.0, 0.5, 1.0)]
    others = [{"side": "ours", "seed": 4, "threshold": 7.0}]
    assert "at most 2.5e-01" in program.compare_thresholds(task, ours + others, options)


def test_routers_train_one_image_at_a_time_from_step_1(program: ModuleType, tmp_path: Path):
    task = task_of(program, tmp_path, family="dynamicdet_w0125_step2", batch=1, start=Path("a.pth"))
    family = program.FAMILIES[task.family]
    family.lay_out(task)
    job = family.job(task, task.folder, 1)
    config = load_config(family.recipe, family.settings(task, task.folder, 1))
    assert (job["step"], job["hyper"], family.entry) == (2, {"lr0": 0.002}, "model")
    assert config.train.optimizer.lr == 0.002 and config.train.optimizer.nominal_batch == 64
    assert config.train.schedule.warmup_min_steps == 1000  # as the original writes it
    assert (config.model.name, config.model.keywords) == ("dy_yolov7_w0125", {"router": True})
    assert config.data.augment[0]["scale"] == 0.9
    for change in ({"batch": 8}, {"start": None}):
        with pytest.raises(SystemExit, match=r"take --per_batch_size 1 --start FILE\.pth"):
            family.lay_out(dataclasses.replace(task, **change))


def test_step_2_of_gold_yolo_learns_from_a_teacher(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    task = task_of(program, tmp_path, family="gold_yolo_n_step2", batch=2)
    family = program.FAMILIES[task.family]
    with pytest.raises(SystemExit, match="name them with --teacher"):
        family.lay_out(task)
    found = []
    monkeypatch.setitem(
        family.lay_out.__globals__, "convert_named", lambda *its: found.append(its[1:])
    )
    task = dataclasses.replace(task, teacher=tmp_path / "step1.pth")
    family.lay_out(task)
    assert found == [(tmp_path / "step1.pth", task.folder / "teacher.ckpt")]
    job = family.job(task, task.folder, 1)
    assert (job["arguments"]["distill"], job["arguments"]["fuse_ab"]) == (True, False)
    assert job["teacher"] == str(tmp_path / "step1.pth")
    config = load_config(family.recipe, family.settings(task, task.folder, 1))
    assert config.train.distill.teacher == str(task.folder / "teacher.ckpt")
    assert config.train.loss["name"] == "gold_yolo_distill_loss"
    assert family.keywords(task) == {"form": "distill"}


@pytest.mark.parametrize("name", ["gold_yolo_n", "dynamicdet_w0125"])
def test_originals_that_keep_every_image_train_on_whole_batches(
    program: ModuleType, tmp_path: Path, name: str
):
    task = task_of(program, tmp_path, family=name, epochs=20, batch=48)
    for number in range(60):
        (task.data / "yolo_labels" / "train" / f"c_{number:02d}.txt").write_text("")
    family = program.FAMILIES[name]
    family.lay_out(task)
    assert len(list((task.folder / "data" / "images" / "train").iterdir())) == 48
    assert len(list((task.folder / "data" / "labels" / "val").iterdir())) == 2
    job = family.job(task, task.folder, 1)
    config = load_config(family.recipe, family.settings(task, task.folder, 1))
    assert config.train.epochs == job["arguments"]["epochs"] == 20
    assert config.train.per_batch_size == 48
    schedule = config.train.schedule
    assert (schedule.warmup_epochs, schedule.warmup_min_steps) == (3, 0)
    assert config.train.optimizer.lr == 0.002
    assert config.input.size == [176, 176]


@pytest.mark.parametrize(
    ("name", "batch", "images"),
    [
        ("gold_yolo_n", 48, 48),
        ("gold_yolo_n", 16, 64),  # of the batches that the original would sum
        ("dynamicdet_w0125", 48, 48),
        ("dynamicdet_w0125", 16, 16),  # whose sum is 1 batch here
    ],
)
def test_an_update_per_batch_with_the_originals_decay(
    program: ModuleType, tmp_path: Path, name: str, batch: int, images: int
):
    task = task_of(program, tmp_path, batch=batch, family=name)
    family = program.FAMILIES[name]
    config = load_config(family.recipe, family.settings(task, task.folder, 1)).train
    assert micro_batches(config.optimizer, batch) == 1
    assert weight_decay(config.optimizer, batch) == pytest.approx(0.0005 * images / 64)


def test_losses_of_dynamicdet_are_weighted_for_size_and_classes(
    program: ModuleType, tmp_path: Path
):
    task = task_of(program, tmp_path, batch=48, size=320)
    family = program.FAMILIES["dynamicdet_w0125"]
    loss = load_config(family.recipe, family.settings(task, task.folder, 1)).train.loss
    assert loss["objectness"] == pytest.approx(0.7 / 4)
    assert loss["classes"] == pytest.approx(0.3 * 3 / 80)


@pytest.fixture
def sensitivity(program: ModuleType) -> ModuleType:  # noqa: ARG001
    """benchmarks/truth_sensitivity.py."""
    return importlib.import_module("truth_sensitivity")


def test_changed_weights_are_those_that_training_updates(sensitivity: ModuleType):
    cell = nn.Dense(64, 8)
    cell.bias.requires_grad = False
    values = {name: np.full(p.shape, 1.0001, np.float32) for name, p in cell.parameters_and_names()}
    rounded = sensitivity.changed(cell, values, "half", seed=1)
    drawn = sensitivity.changed(cell, values, "1e-3", seed=1)
    again = sensitivity.changed(cell, values, "1e-3", seed=1)
    assert np.array_equal(rounded["weight"], np.ones((8, 64), np.float32))
    assert np.array_equal(rounded["bias"], values["bias"])
    assert np.std(drawn["weight"]) == pytest.approx(1e-3, rel=0.2)
    assert np.array_equal(drawn["weight"], again["weight"])
    assert np.array_equal(drawn["bias"], values["bias"])


def test_distances_of_losses_and_gradients(sensitivity: ModuleType):
    own = sensitivity.Found(np.array([1.0, -1.0, 1.0, -1.0]), 2.0, np.array([3.0, 4.0]))
    other = sensitivity.Found(np.array([1.0, -1.0, 1.5, -1.0]), 2.5, np.array([-4.0, 3.0]))
    assert sensitivity.distances(own, own) == pytest.approx([0, 0, 0, 1])
    assert sensitivity.distances(own, other) == pytest.approx([0.5, 0.25, 2**0.5, 0])


def test_only_changed_weights_move_loss_and_gradient(
    sensitivity: ModuleType, program: ModuleType, tmp_path: Path
):
    task = task_of(program, tmp_path)
    for split in ("train", "val"):
        for name in ("a", "b"):
            image = np.full((64, 64, 3), 90, np.uint8)
            image[20:44, 20:44] = 200
            write_image(task.data / "JPEGImages" / f"{name}_{split}.jpg", image)
    options = argparse.Namespace(
        data=task.data, size=64, per_batch_size=2, seeds=[1, 2], changes=["0", "1e-6"]
    )
    rows = sensitivity.measured("yolo_fastestv2", None, options)
    assert [row[:2] for row in rows] == [["0", 1], ["1e-6", 1], ["0", 2], ["1e-6", 2]]
    for row in rows:
        if row[0] == "0":
            assert row[2:] == pytest.approx([0, 0, 0, 1], abs=1e-6)
        else:
            assert 0 < row[3] < 1e-3
            assert row[4] > 1e-6

"""The commands for a routed model: thresholds, test.py at a threshold or a share, the curve,
predict, info.

A toy that compiles in a moment replaces the networks, which tests/engine/test_routing.py runs.
"""

import csv
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import Command
from routed_toy import SIDE, RoutedToy

from mindyolo_ext.backend import nn
from mindyolo_ext.backend.parameters import parameter_values
from mindyolo_ext.checkpoint.store import CheckpointMetadata, load_checkpoint, save_checkpoint
from mindyolo_ext.data.shapes import SHAPE_NAMES, make_shapes_dataset
from mindyolo_ext.models.registry import create_model

PICTURES = 6
pytestmark = pytest.mark.usefixtures("quiet_logging", "toys")


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register a toy as the model ``toy``."""

    def create(name: str, num_classes: int, **keywords: object) -> nn.Cell:
        return (RoutedToy if name == "toy" else partial(create_model, name))(
            num_classes, **keywords
        )

    monkeypatch.setattr("mindyolo_ext.engine.build.create_model", create)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dynamicdet_cli")


@pytest.fixture(scope="module")
def recipe(folder: Path) -> Path:
    """Evaluation on drawn images."""
    shapes = make_shapes_dataset(
        folder / "shapes", train_images=1, val_images=PICTURES, size=(96, 96), progress=False
    )
    path = folder / "shapes.yaml"
    val = {"format": "coco", "images": "images/val", "annotations": "annotations/val.json"}
    path.write_text(
        yaml.safe_dump(
            {
                "input": {"size": [SIDE, SIDE]},
                "data": {"root": str(shapes), "val": val},
                "eval": {"per_batch_size": 2},
            }
        )
    )
    return path


def checkpoint(path: Path, *, router: bool = True) -> Path:
    """A toy's weights as a checkpoint."""
    return saved(path, "toy", RoutedToy(len(SHAPE_NAMES), router=router))


def saved(path: Path, name: str, model: nn.Cell) -> Path:
    save_checkpoint(
        path,
        parameter_values(model),
        CheckpointMetadata(
            name,
            len(SHAPE_NAMES),
            list(SHAPE_NAMES),
            model.input_spec,
            dict(model.architecture),
            extra={"kept": 1},
        ),
    )
    return path


@pytest.fixture(scope="module")
def fresh(folder: Path) -> Path:
    return checkpoint(folder / "fresh.ckpt")


@pytest.fixture
def told(command: Command) -> Command:
    """The error of a command that must fail."""

    def run(*arguments: object) -> tuple[int, str]:
        status, text = command(*arguments)
        assert "Traceback" not in text
        return status, text.strip().splitlines()[-1]

    return run


def routing_rows(metrics: Path) -> list[str]:
    """Head, rule and row of the table of exits."""
    lines = metrics.read_text().splitlines()
    first = next(k for k, line in enumerate(lines) if line.split()[:1] == ["threshold"])
    return lines[first : first + 3]


def test_thresholds_then_shares(command: Command, recipe: Path, fresh: Path, folder: Path):
    """The whole sequence: measure, read, evaluate at a share, predict at a share."""
    measured = folder / "measured.ckpt"
    status, text = command(
        "thresholds", "--config", recipe, "--weight", fresh, "--output", measured
    )
    assert status == 0, text
    assert (
        f"easiness of {PICTURES} images" in text
        and (folder / "measured-easiness.png").stat().st_size > 1000
    )
    values, metadata = load_checkpoint(measured)
    stored = metadata.extra.pop("thresholds")
    assert metadata.extra == {"kept": 1} == load_checkpoint(fresh)[1].extra
    for name, value in load_checkpoint(fresh)[0].items():
        np.testing.assert_array_equal(values[name], value)
    assert (stored["pictures"], stored["split"], stored["size"]) == (PICTURES, "val", [SIDE, SIDE])
    assert (
        0
        < stored["lowest"]
        <= stored["values"][1]
        < stored["values"][5]
        < stored["values"][9]
        <= stored["highest"]
    )

    status, text = command("info", measured)
    assert (
        status == 0
        and f"50 % {stored['values'][5]:.6f}" in text
        and f"({PICTURES} pictures of" in text
    )

    out = folder / "half"
    status, text = command(
        "test", "--config", recipe, "--weight", measured, "--easy", 0.5, "--save_dir", out
    )
    assert status == 0, text
    head, _, row = routing_rows(out / "metrics.txt")
    assert (
        head.split()[:4] == ["threshold", "easy,", "%", "mean"]
        and f"GFLOPs at {SIDE}x{SIDE}" in head
    )
    assert row.split()[:2] == [f"{stored['values'][5]:.6f}", "50.0"]
    assert json.loads((out / "detections.json").read_text())

    picture = next((folder / "shapes" / "images" / "val").iterdir())
    status, text = command(
        "predict", picture, "--weight", measured, "--easy", 1, "--save_dir", folder / "found"
    )
    assert status == 0 and "1 easy, 0 hard at threshold 0.000000" in text


def test_the_curve(command: Command, recipe: Path, fresh: Path, folder: Path):
    out = folder / "curve"
    status, text = command(
        "test", "--config", recipe, "--weight", fresh, "--curve", True, "--save_dir", out
    )
    assert status == 0, text
    with (out / "tradeoff.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert (rows[0]["easy"], rows[-1]["easy"], len(rows)) == (1, 0, 11)
    assert all(
        a["easy"] >= b["easy"] and a["threshold"] <= b["threshold"] for a, b in zip(rows, rows[1:])
    )
    about = json.loads((out / "tradeoff.json").read_text())
    parts = about["gflops"]
    assert rows[0]["gflops"] == pytest.approx(parts["glance"] + parts["first"])
    assert rows[-1]["gflops"] == pytest.approx(parts["glance"] + parts["second"])
    times = about["milliseconds"]
    assert rows[0]["images_per_second"] == pytest.approx(1e3 / (times["glance"] + times["first"]))
    assert about["rows"] == rows and (out / "tradeoff.png").stat().st_size > 1000
    assert not (out / "metrics.txt").exists()


def test_wishes_that_cannot_be_met(told: Command, recipe: Path, fresh: Path, folder: Path):
    out = folder / "never"
    cascade = checkpoint(folder / "cascade.ckpt", router=False)
    plain = saved(
        folder / "plain.ckpt", "yolo_fastestv2", create_model("yolo_fastestv2", len(SHAPE_NAMES))
    )
    damaged = folder / "short.ckpt"
    damaged.write_bytes(fresh.read_bytes()[:1000])
    for verb, weight, flags, wanted in (
        (
            "test",
            fresh,
            ("--easy", 0.5),
            f"mindyolo-ext thresholds --config RECIPE.yaml --weight {fresh}",
        ),
        ("test", fresh, ("--easy", 2), "easy: wanted the share of easy images in 0..1, got 2.0"),
        ("test", fresh, ("--dy_thres", 1.5), "eval.dy_thres wanted a number from 0 to 1, got 1.5"),
        ("test", fresh, ("--dy_thres", 0.5, "--easy", 0.5), "not allowed with argument"),
        ("test", plain, ("--dy_thres", 0.5), "yolo_fastestv2 is not routed"),
        ("test", plain, ("--curve", True), "is not routed"),
        ("test", cascade, ("--curve", True), "has no router yet"),
        ("test", cascade, ("--easy", 0.5), "has no router yet"),
    ):
        status, message = told(
            verb, "--config", recipe, "--weight", weight, "--save_dir", out, *flags
        )
        assert status in (1, 2) and wanted in message and not out.exists()
    for weight, flags, wanted in (
        (plain, (), "is not routed"),
        (cascade, (), "has no router yet"),
        (fresh, ("--output", folder / "a.pth"), "a.pth: our checkpoints end in .ckpt"),
        (damaged, (), "short.ckpt"),
        (folder / "no.ckpt", (), "no.ckpt: no such file"),
        (fresh, ("--split", "train"), "data.train is empty"),
    ):
        status, message = told("thresholds", "--config", recipe, "--weight", weight, *flags)
        assert status == 1 and wanted in message
    picture = folder / "shapes" / "images" / "val"
    status, message = told("predict", picture, "--weight", fresh, "--easy", 0.5, "--save_dir", out)
    assert status == 1 and "holds no thresholds yet" in message and not out.exists()


@pytest.mark.all_cases
def test_a_cascade_is_evaluated_by_either_detector(command: Command, recipe: Path, folder: Path):
    cascade = checkpoint(folder / "cascade2.ckpt", router=False)
    for flags, share in (((), "0.0"), (("--dy_thres", 0), "100.0")):
        out = folder / f"cascade-{share}"
        status, text = command(
            "test", "--config", recipe, "--weight", cascade, "--save_dir", out, *flags
        )
        assert status == 0, text
        assert routing_rows(out / "metrics.txt")[-1].split()[1] == share
    assert (
        len(
            {
                (folder / f"cascade-{share}" / "detections.json").read_text()
                for share in ("0.0", "100.0")
            }
        )
        == 2
    )


def test_thresholds_in_place_and_gflops(command: Command, recipe: Path, fresh: Path, folder: Path):
    own = folder / "own.ckpt"
    shutil.copy(fresh, own)
    assert (
        command("thresholds", "--config", recipe, "--weight", own, "--set", "eval.fold=False")[0]
        == 0
    )
    assert load_checkpoint(own)[1].extra["thresholds"]["pictures"] == PICTURES
    status, text = command("info", own, "--gflops")
    assert status == 0 and "GFLOPs for an easy image" in text and f"at {SIDE}x{SIDE}" in text

"""Darknet ``.data`` files."""

import logging
from pathlib import Path

import numpy as np
import pytest
from label_sets import LINE, image, put

from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.formats.darknet import parse_data_file
from mindyolo_ext.data.image_file import write_image
from mindyolo_ext.errors import DataError

SAMPLE = Path(__file__).resolve().parents[2] / "configs/yolo_fastestv2/custom.data"


def written(folder: Path, label: str | None = "0 0.5 0.5 0.5 0.5\n", more: str = "") -> dict:
    """One image in a folder with a dot; returns the configuration."""
    (folder / "v1.2").mkdir(exist_ok=True)
    write_image(folder / "v1.2/a.b.png", np.zeros((20, 40, 3), np.uint8))
    if label is not None:
        (folder / "v1.2/a.b.txt").write_text(label, encoding="utf-8")
    (folder / "train.txt").write_text("./v1.2/a.b.png\n", encoding="utf-8")
    (folder / "x.names").write_text("cat\ndog\n", encoding="utf-8")
    (folder / "x.data").write_text(
        f"[data]\ntrain=train.txt\nval=train.txt\nnames=x.names\n{more}", encoding="utf-8"
    )
    return {"format": "darknet", "data": "x.data", "split": "train"}


def test_shipped_sample_is_complete() -> None:
    settings = parse_data_file(SAMPLE)
    assert None not in [
        getattr(settings, name)
        for name in ("epochs", "steps", "batch_size", "learning_rate", "train")
    ]
    assert (settings.width, settings.height, settings.anchor_num) == (352, 352, 3)
    assert (
        settings.pre_weights is None and len(settings.anchors) == 12 and settings.subdivisions == 1
    )


def test_values_have_their_types(tmp_path: Path) -> None:
    file = tmp_path / "a.data"
    file.write_text(
        "[name]\n# note\nmodel_name = a=b \nsteps=150,250\nlearning_rate=0.001\nanchor_num=2\n"
        "anchors=1,2, 3.5,4\n\npre_weights=w.pth\n",
        encoding="utf-8",
    )
    settings = parse_data_file(file)
    assert (settings.model_name, settings.steps, settings.learning_rate) == (
        "a=b",
        (150.0, 250.0),
        0.001,
    )
    assert (
        settings.anchors == (1, 2, 3.5, 4)
        and settings.pre_weights == "w.pth"
        and settings.epochs is None
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch=3", "x.data:5: unknown key epoch, did you mean epochs"),
        ("epochs", "x.data:5: wanted key=value, got 'epochs'"),
        ("epochs=3.5", "x.data:5: epochs must be an integer, got '3.5'"),
        ("learning_rate=fast", "learning_rate must be a number, got 'fast'"),
        ("steps=1,two", "steps must be comma-separated numbers, got '1,two'"),
        ("train=again.txt", "x.data:5: duplicate key train"),
        ("anchors=1,2,3", "anchors must be width, height pairs, 1 per level, got 3 numbers"),
        ("classes=3", "classes is 3, but x.names has 2 names"),
    ],
)
def test_faults_name_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_dataset(written(tmp_path, more=text + "\n"), tmp_path)


def test_label_beside_the_image(tmp_path: Path) -> None:
    sample = build_dataset(written(tmp_path), tmp_path).load(0)
    np.testing.assert_allclose(sample.boxes, [[10, 5, 30, 15]])
    assert build_dataset(written(tmp_path, ""), tmp_path).load(0).boxes.shape == (0, 4)


def test_missing_label_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="a.b.txt: no such label file"):
        build_dataset(written(tmp_path, None), tmp_path)


def test_missing_parts(tmp_path: Path) -> None:
    config = written(tmp_path)
    with pytest.raises(ValueError, match="split must be train or val, got 'test'"):
        build_dataset({**config, "split": "test"}, tmp_path)
    (tmp_path / "x.data").write_text("train=train.txt\n", encoding="utf-8")
    with pytest.raises(ValueError, match="got no names"):
        build_dataset(config, tmp_path)
    with pytest.raises(ValueError, match="got no val"):
        build_dataset({**config, "split": "val"}, tmp_path)
    (tmp_path / "x.data").write_text("train=gone.txt\nnames=x.names\n", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="gone.txt"):
        build_dataset(config, tmp_path)
    with pytest.raises(FileNotFoundError, match="none.data"):
        parse_data_file(tmp_path / "none.data")


def test_files_of_cvat_and_darknet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """CVAT puts everything into one folder named data."""
    image(tmp_path / "set/obj_train_data/frame 0.PNG")
    put(tmp_path / "set/obj_train_data/frame 0.txt", LINE)
    put(tmp_path / "set/obj.names", "cat\r\n\r\n".encode("utf-8-sig"))
    put(tmp_path / "set/train.txt", "data/obj_train_data/frame 0.PNG\n")
    text = (
        "classes = 1 # one\ntrain  = data/train.txt\nvalid = data/train.txt ; the same\n"
        "names = data/obj.names\nbackup = backup/\n"
    )
    put(tmp_path / "set/obj.data", text)
    with caplog.at_level(logging.INFO):
        for split in ("train", "val"):
            description = {"format": "darknet", "data": "set/obj.data", "split": split}
            dataset = build_dataset(description, tmp_path)
            assert dataset.annotations(0).boxes.tolist() == [[30, 10, 50, 30]]
    assert "obj.data:5: backup is ignored" in caplog.text


def test_labels_in_the_folder_that_darknet_looks_into(tmp_path: Path) -> None:
    image(tmp_path / "images/train/a.jpg")
    put(tmp_path / "labels/train/a.txt", LINE)
    put(tmp_path / "train.txt", "images/train/a.jpg\n")
    put(tmp_path / "x.names", "cat\n")
    put(tmp_path / "x.data", "train=train.txt\nnames=x.names\n")
    description = {"format": "darknet", "data": "x.data", "split": "train"}
    assert len(build_dataset(description, tmp_path).labels(0)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("valid=a\nval=b", "x.data:2: duplicate key val"),
        ("epochs=0", "x.data:1: epochs must be an integer above 0"),
        ("epochs=-1", "epochs must be an integer, got '-1'"),
        ("epochs=" + "9" * 5000, "epochs must be an integer above 0"),
        ("classes=99999999999", "classes must be an integer above 0 and up to 16384"),
        ("learning_rate=nan", "learning_rate must be a number above 0"),
        ("learning_rate=inf", "learning_rate must be a number above 0"),
        ("anchors=1,nan", "anchors must be comma-separated numbers above 0"),
        ("anchor_num=0\nanchors=1,2", "x.data:1: anchor_num must be an integer above 0"),
        ("\x1b[2J=1", r"unknown key \\x1b\[2J"),
        ("=1", "unknown key"),
    ],
)
def test_values_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_data_file(put(tmp_path / "x.data", text))


def test_a_sign_of_number_inside_of_a_path(tmp_path: Path) -> None:
    file = put(tmp_path / "x.data", "train=c#/train;1.txt # a list\n")
    assert parse_data_file(file).train == "c#/train;1.txt"


def test_a_yaml_file_is_told_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"d.yaml: wanted a .data file .*format: yolo"):
        parse_data_file(put(tmp_path / "d.yaml", "train: images"))

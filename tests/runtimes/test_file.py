"""Metadata of exported files: what is read, and what is refused before a runtime opens the file."""

import json
from pathlib import Path

import onnx
import pytest
from drawn_onnx import NAMES, SPEC, draw_onnx, texts
from onnx import TensorProto, helper

from mindyolo_ext.errors import CheckpointError, MissingFileError
from mindyolo_ext.runtimes.file import read_exported


def test_what_a_file_says_is_read(tmp_path: Path):
    file = read_exported(draw_onnx(tmp_path / "a.onnx", texts(batch_size="any")))
    assert (file.metadata.model, file.metadata.class_names) == ("yolox_nano", NAMES)
    assert (file.metadata.input_spec, file.batch, file.part) == (SPEC, None, "")
    assert read_exported(draw_onnx(tmp_path / "b.onnx", texts(batch_size=None))).batch == 1


def test_parts_lie_beside_the_file(tmp_path: Path):
    files = {"first": "x-first.onnx", "second": "x-second.onnx"}
    own = texts(part="first", holds="a", files=json.dumps(files), pair="p", dy_thres="0.4")
    file = read_exported(draw_onnx(tmp_path / "x-first.onnx", own))
    assert file.files == {part: tmp_path / name for part, name in files.items()}
    assert (file.part, file.pair, file.dy_thres) == ("first", "p", 0.4)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"input_spec": None}, "lacks input_spec; it was not written by `mindyolo-ext export`"),
        ({"model": None, "outputs": None}, "lacks model, outputs"),
        ({"input_spec": "{"}, "metadata is broken"),
        ({"input_spec": '{"size": [1e99, 32]}'}, "metadata is broken"),
        ({"input_spec": '{"size": [33, 32]}'}, "multiples of 32"),
        ({"input_spec": '{"size": [320000, 32]}'}, "at most 16384 pixels"),
        ({"input_spec": '{"std": ["a", "b", "c"]}'}, "input_spec.std"),
        ({"input_spec": "[" * 100_000}, "metadata is broken"),
        ({"num_classes": "-1"}, "metadata is broken"),
        ({"num_classes": "9" * 5000}, "metadata is broken"),
        ({"num_classes": "3"}, "2 class names for 3 classes"),
        ({"class_names": '{"a": 1}'}, "class_names"),
        ({"class_names": "[1, 2]"}, "class_names"),
        ({"batch_size": "0"}, "batch_size is '0'"),
        ({"batch_size": "many"}, "batch_size is 'many'"),
        ({"outputs": "rows"}, "outputs is 'rows'"),
        ({"part": "third", "files": "{}"}, "part is 'third'"),
        ({"part": "first"}, "metadata is broken"),
        ({"part": "first", "files": '{"first": "../x.onnx"}'}, "is not beside this file"),
        ({"part": "first", "files": '{"first": "/etc/passwd"}'}, "is not beside this file"),
        ({"part": "first", "files": '{"first": "..\\\\x.onnx"}'}, "is not beside this file"),
        ({"dy_thres": "high"}, "metadata is broken"),
        ({"thresholds": '{"values": [1]}'}, "extra.thresholds"),
    ],
)
def test_broken_metadata_is_refused(tmp_path: Path, changes: dict, wanted: str):
    path = draw_onnx(tmp_path / "a.onnx", texts(**changes))
    with pytest.raises(CheckpointError, match=wanted) as caught:
        read_exported(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 700


def test_files_that_are_none_are_named(tmp_path: Path):
    with pytest.raises(MissingFileError, match="a.onnx: no such file"):
        read_exported(tmp_path / "a.onnx")
    for name in ("b.onnx", "b.xml", "b.mindir"):
        (tmp_path / name).write_bytes(b"no network")
        with pytest.raises(CheckpointError, match=f"{name}: not a"):
            read_exported(tmp_path / name)
    with pytest.raises(MissingFileError, match="b.json: no such file"):
        (tmp_path / "b.param").write_text("7767517\n")
        read_exported(tmp_path / "b.param")


def test_a_graph_that_may_run_forever_is_refused(tmp_path: Path):
    body = helper.make_graph([], "body", [], [])
    loop = helper.make_node("Loop", ["", ""], [], body=body)
    path = draw_onnx(tmp_path / "a.onnx", texts(), extra=[loop])
    with pytest.raises(CheckpointError, match="run anything and forever .Loop."):
        read_exported(path)


def test_operators_that_the_file_defines_itself_are_refused(tmp_path: Path):
    path = draw_onnx(tmp_path / "a.onnx", texts())
    model = onnx.load(str(path))
    hidden = helper.make_node("Loop", ["", ""], [], body=helper.make_graph([], "body", [], []))
    model.functions.append(
        helper.make_function("own", "Innocent", [], [], [hidden], [helper.make_opsetid("", 18)])
    )
    onnx.save(model, str(path))
    with pytest.raises(CheckpointError, match="run anything and forever .custom operators."):
        read_exported(path)


def test_numbers_in_other_files_are_refused(tmp_path: Path):
    path = draw_onnx(tmp_path / "a.onnx", texts())
    model = onnx.load(str(path))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="1 of its tensors are in other files"):
        read_exported(path)

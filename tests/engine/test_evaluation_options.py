"""Options of an evaluation: VOC's metrics, boxes clipped to the input before NMS, the program for
COCO's metrics.
"""

import math

import numpy as np
import pytest
from photos import add_photo

from mindyolo_ext.config import Config, EvalConfig, config_from_mapping
from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.engine.evaluate import evaluate
from mindyolo_ext.errors import UsageError
from mindyolo_ext.input_spec import InputSpec

OBJECTS = [((8, 8, 24, 24), 0, False), ((40, 40, 60, 60), 1, True), ((30, 4, 60, 20), 1, False)]


class SaysAlways:
    """Stands in for a predictor: the same boxes, classes and scores for every image."""

    num_classes = 2

    def __init__(self, *found: tuple[tuple[float, ...], int, float]):
        self.input_spec, self.calls = InputSpec(size=(64, 64), color="rgb"), 0
        self.boxes = np.array([box for box, _, _ in found], np.float32)
        self.scores = np.zeros((len(found), 2), np.float32)
        for row, (_, label, score) in enumerate(found):
            self.scores[row, label] = score

    def compile(self, _shape: tuple[int, ...], _dtype: np.dtype) -> bool:
        return False

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.calls += 1
        return np.stack([self.boxes] * len(images)), np.stack([self.scores] * len(images))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two images of the network's size with the same objects."""
    folder = tmp_path_factory.mktemp("black")
    collector = Collector("black", ["cat", "dog"], relative=False, tolerance=0)
    boxes, labels, ignore = zip(*OBJECTS)
    for number in range(2):
        add_photo(
            collector,
            folder / f"{number}.png",
            np.zeros((64, 64, 3), np.uint8),
            boxes,
            image_id=number + 1,
            labels=labels,
            ignore=ignore,
        )
    return collector.finish()


def test_voc_stands_beside_coco(dataset: Dataset) -> None:
    predictor = SaysAlways(
        ((8, 8, 24, 24), 0, 0.9),
        ((40, 40, 60, 60), 1, 0.8),
        ((0, 40, 9, 60), 1, 0.7),
        ((30, 4, 60, 20), 1, 0.6),
    )
    result = evaluate(predictor, dataset, EvalConfig(per_batch_size=2, metrics=["voc"]), workers=0)
    cat, dog = result.voc.per_class
    assert (cat.name, cat.num_ground_truth, cat.ap, cat.ap07) == ("cat", 2, 1, 1)
    assert (dog.num_ground_truth, dog.num_difficult, dog.num_detections) == (2, 2, 4)
    # the difficult object does not count
    assert dog.ap == pytest.approx(0.5) and dog.ap07 == pytest.approx(0.5)
    values = result.values()
    assert (
        (values["voc07_AP50"], values["voc_AP50"])
        == (result.voc.ap07, result.voc.ap)
        == pytest.approx((0.75, 0.75))
    )
    assert result.voc.table() in result.table() and result.coco.class_table() in result.table()


def test_without_voc_there_are_no_such_numbers(dataset: Dataset) -> None:
    result = evaluate(SaysAlways(((8, 8, 24, 24), 0, 0.9)), dataset, EvalConfig(), workers=0)
    assert result.voc is None and "voc_AP50" not in result.values() and "VOC" not in result.table()


def test_voc_of_a_data_set_without_objects(tmp_path) -> None:
    collector = Collector("empty", ["cat", "dog"], relative=False, tolerance=0)
    add_photo(collector, tmp_path / "0.png", np.zeros((64, 64, 3), np.uint8))
    result = evaluate(
        SaysAlways(((8, 8, 24, 24), 0, 0.9)),
        collector.finish(),
        EvalConfig(metrics=["voc"]),
        workers=0,
    )
    assert math.isnan(result.values()["voc_AP50"])


def test_a_missing_program_for_the_metrics_is_told_before_the_network_runs(
    dataset: Dataset, monkeypatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    predictor = SaysAlways(((8, 8, 24, 24), 0, 0.9))
    with pytest.raises(RuntimeError, match="pip install faster-coco-eval"):
        evaluate(predictor, dataset, EvalConfig(backend="faster_coco_eval"), workers=0)
    assert predictor.calls == 0


def test_the_recipe_names_the_program_for_the_metrics(dataset: Dataset, monkeypatch) -> None:
    named = []
    monkeypatch.setattr("mindyolo_ext.engine.evaluate.chosen_backend", named.append)
    monkeypatch.setattr(
        "mindyolo_ext.engine.evaluate.evaluate_coco", lambda *_, backend: named.append(backend)
    )
    predictor = SaysAlways(((8, 8, 24, 24), 0, 0.9))
    for backend in ("pycocotools", "faster_coco_eval"):
        evaluate(predictor, dataset, EvalConfig(backend=backend), workers=0)
    assert named == ["pycocotools"] * 2 + ["faster_coco_eval"] * 2


def test_wrong_names_are_told_with_the_recipe() -> None:
    assert config_from_mapping({"eval": {"metrics": ["voc", "darknet"]}}).eval.metrics == [
        "voc",
        "darknet",
    ]
    with pytest.raises(
        ValueError, match="eval.metrics wanted one of darknet, voc, got 'VOC', did you mean voc"
    ):
        config_from_mapping({"eval": {"metrics": ["VOC"]}})
    with pytest.raises(
        ValueError,
        match="eval.backend wanted one of auto, faster_coco_eval, pycocotools, got 'fast'",
    ):
        config_from_mapping({"eval": {"backend": "fast"}})
    assert config_from_mapping({"train": {"best_metric": "AP50"}}).train.best_metric == "AP50"
    with pytest.raises(ValueError, match="train.best_metric wanted one of AP, AP50, got 'mAP'"):
        config_from_mapping({"train": {"best_metric": "mAP"}})


def test_the_flag_of_the_metrics_reaches_the_recipe(command, monkeypatch, tmp_path) -> None:
    recipe, seen = tmp_path / "r.yaml", []
    recipe.write_text("model: {name: yolo_fastestv2}\n", encoding="utf-8")

    def start(_options: object, _seed: int, config: Config, _extra: str) -> None:
        seen.append(config.eval.backend)
        raise UsageError("far enough")

    monkeypatch.setattr("mindyolo_ext.cli.evaluate.start", start)
    monkeypatch.setattr("mindyolo_ext.cli.evaluate.digest", lambda _weight: "")
    assert (
        command(
            "test", "--config", recipe, "--weight", "w.ckpt", "--coco_backend", "faster_coco_eval"
        )[0]
        != 0
    )
    assert seen == ["faster_coco_eval"]
    assert (
        command("test", "--config", recipe, "--weight", "w.ckpt", "--coco_backend", "fast")[0] == 2
    )

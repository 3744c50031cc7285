"""The curve of a routed model: AP for every mixture of its two exits, from one pass over the
images.
"""

from pathlib import Path

import numpy as np
import pytest
from photos import add_photo
from routed_toy import SIDE, RoutedToy

from mindyolo_ext.backend import Tensor
from mindyolo_ext.config import EvalConfig
from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.engine.accuracy_speed import Tradeoff, accuracy_over_speed
from mindyolo_ext.engine.routing import RoutedPredictor

GREYS = tuple(range(20, 240, 20))  # 11 images, dark ones are hard
BOX = (4.0, 4.0, 28.0, 20.0)


class FindsBright(RoutedPredictor):
    """The second exit finds every box, the first only those of the six brightest images. The parts
    take 2, 1 and 5 ms.
    """

    passes = 0

    def glance(self, images: np.ndarray) -> tuple[Tensor, ...]:
        self.passes += 1
        self._work("glance", len(images), 0.002)
        self.easiness = images.mean((1, 2, 3)) / 255
        return (images,)

    def leave(self, part: str, tensors: tuple[Tensor, ...]) -> tuple[np.ndarray, np.ndarray]:
        (images,) = tensors
        self._work(part, len(images), {"first": 0.001, "second": 0.005}[part])
        boxes = np.tile(np.float32(BOX), (len(images), 1, 1))
        seen = (self.easiness > 110 / 255) | (part == "second")
        return boxes, 0.9 * seen.astype(np.float32)[:, None, None]

    def _work(self, part: str, count: int, seconds: float) -> None:
        self.meters[part].images += count
        self.meters[part].seconds += count * seconds


@pytest.fixture(scope="module")
def greys(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("greys")
    collector = Collector("greys", ["a"], relative=False, tolerance=0)
    for number, grey in enumerate(np.random.default_rng(0).permutation(GREYS).tolist()):
        image = np.full((SIDE, SIDE, 3), grey, np.uint8)
        add_photo(collector, folder / f"{number}.png", image, [BOX], image_id=number + 7)
    return collector.finish()


@pytest.fixture(scope="module")
def curve(greys: Dataset) -> Tradeoff:
    predictor = FindsBright(RoutedToy())
    found = accuracy_over_speed(predictor, greys, EvalConfig(per_batch_size=4), workers=0)
    assert predictor.passes == 3  # 11 images once
    return found


def test_the_hardest_pictures_go_to_the_second_exit_first(curve: Tradeoff):
    """With the k darkest of 11 images there, the five that only this exit finds are found one after
    the other.
    """
    assert [round(11 * (1 - row["easy"])) for row in curve.rows] == [
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
        9,
        11,
    ]
    for row in curve.rows:
        found = min(6 + round(11 * (1 - row["easy"])), 11)
        recall_points = np.count_nonzero(np.linspace(0, 1, 101) <= found / 11 + 1e-9)
        assert row["AP"] == pytest.approx(recall_points / 101)
        assert row["AR100"] == pytest.approx(found / 11)


def test_arithmetic_and_speed_are_mixtures(curve: Tradeoff):
    assert curve.milliseconds == pytest.approx({"glance": 2.0, "first": 1.0, "second": 5.0})
    for row in curve.rows:
        assert row["images_per_second"] == pytest.approx(
            1e3 / (2 + row["easy"] + 5 * (1 - row["easy"]))
        )
        assert row["gflops"] == pytest.approx(curve.gflops.mean(row["easy"]))
    assert (
        curve.rows[0]["gflops"] == curve.gflops.easy < curve.gflops.hard == curve.rows[-1]["gflops"]
    )


def test_table_and_files(curve: Tradeoff, tmp_path: Path):
    rows = [line.split() for line in curve.table().splitlines()[2:13]]
    assert [row[0] for row in rows][::5] == ["100.0/0.0", "54.5/45.5", "0.0/100.0"]
    assert float(rows[5][4]) == pytest.approx(100 * curve.rows[5]["AP"], abs=0.005)
    curve.save(tmp_path, "toy")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "tradeoff.csv",
        "tradeoff.json",
        "tradeoff.png",
    ]
    assert len((tmp_path / "tradeoff.csv").read_text().splitlines()) == 12


def test_classes_that_do_not_fit(greys: Dataset):
    with pytest.raises(ValueError, match="has 1 classes, but the network has 2"):
        accuracy_over_speed(FindsBright(RoutedToy(2)), greys, EvalConfig(), workers=0)

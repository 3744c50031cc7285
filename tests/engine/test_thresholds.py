"""Thresholds: shares of easy images, what a checkpoint stores about them, and errors for impossible
shares.
"""

from pathlib import Path

import numpy as np
import pytest
from photos import add_photo
from routed_toy import SIDE, RoutedToy

from mindyolo_ext.checkpoint.store import CheckpointMetadata, load_checkpoint, save_checkpoint
from mindyolo_ext.config import EvalConfig, config_from_mapping
from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.engine.evaluate import by_picture
from mindyolo_ext.engine.flops import RoutedGflops
from mindyolo_ext.engine.routing import RoutedPredictor
from mindyolo_ext.engine.thresholds import (
    Thresholds,
    check_router,
    choose_threshold,
    measure_easiness,
    store_thresholds,
    thresholds_of,
)
from mindyolo_ext.evaluation.routing import is_hard, threshold_for
from mindyolo_ext.models.registry import create_model

pytestmark = pytest.mark.graph
GREYS = (230, 26, 179, 51, 102, 128, 77)
EASINESS = np.random.default_rng(3).random(40).astype(np.float32)
STORED = {
    "values": thresholds_of(EASINESS).tolist(),
    "lowest": float(EASINESS.min()),
    "highest": float(EASINESS.max()),
    "pictures": 40,
    "data": "toy",
    "size": [SIDE, SIDE],
}


def metadata(**extra: object) -> CheckpointMetadata:
    return CheckpointMetadata("toy", 1, extra=extra)


def test_thresholds_are_percentiles_between_nought_and_one():
    values = thresholds_of(np.arange(21, dtype=np.float32) / 20)
    np.testing.assert_allclose(values, np.arange(11) / 10, atol=1e-7)
    assert values.dtype == np.float64
    np.testing.assert_allclose(thresholds_of(np.float32([0.25])), [0, *[0.25] * 9, 1])
    # in proportion
    np.testing.assert_allclose(thresholds_of([0.2, 0.4])[[1, 5, 9]], [0.22, 0.3, 0.38])


@pytest.mark.parametrize("wrong", [[], [0.1, np.nan], [np.inf]])
def test_thresholds_need_finite_numbers(wrong: list[float]):
    with pytest.raises(ValueError, match="at least one image and finite numbers"):
        thresholds_of(np.array(wrong))


@pytest.mark.parametrize("easy", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
def test_a_share_gives_that_share(easy: float):
    threshold = threshold_for(easy, STORED)
    assert 1 - is_hard(EASINESS, threshold).mean() == pytest.approx(easy)
    assert threshold == pytest.approx(STORED["values"][round(10 * (1 - easy))], abs=1e-12)


@pytest.mark.parametrize("easy", [0.02, 0.25, 0.66, 0.97])
def test_between_percentiles_in_proportion(easy: float):
    """Evenly spread images meet the share exactly; at the ends, 0 and 1 would be far from any
    image.
    """
    easiness = np.linspace(0.4, 0.6, 1001)
    stored = {"values": thresholds_of(easiness).tolist(), "lowest": 0.4, "highest": 0.6}
    assert threshold_for(easy, stored) == pytest.approx(
        np.percentile(easiness, 100 * (1 - easy)), abs=1e-9
    )


def test_the_ends_need_no_measurement():
    assert (threshold_for(1, {}), threshold_for(0, {})) == (0.0, 1.0)


def test_no_wish_is_no_threshold():
    assert choose_threshold(RoutedToy(), metadata(), where="a.ckpt") is None
    assert choose_threshold(create_model("yolo_fastestv2", 1), metadata(), where="a.ckpt") is None


def test_wishes_that_are_met():
    model = RoutedToy()
    assert choose_threshold(model, metadata(), where="a.ckpt", dy_thres=0.25) == 0.25
    assert choose_threshold(RoutedToy(router=False), metadata(), where="a.ckpt", dy_thres=0) == 0
    assert choose_threshold(RoutedToy(router=False), metadata(), where="a.ckpt", easy=1) == 0
    assert choose_threshold(
        model, metadata(thresholds=STORED), where="a.ckpt", easy=0.9
    ) == pytest.approx(np.percentile(EASINESS.astype(np.float64), 10))


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (
            {"easy": 0.5},
            r"a\.ckpt: holds no thresholds yet, .* 50 % .*-ext thresholds --config .* --weight "
            r"a\.ckpt",
        ),
        ({"easy": 1.5}, r"share of easy images in 0\.\.1, got 1\.5"),
        ({"dy_thres": -0.5}, r"threshold in 0\.\.1 .*got -0\.5"),
        ({"easy": 0.5, "dy_thres": 0.5}, "a.ckpt: dy_thres and easy exclude each other"),
    ],
)
def test_wishes_that_cannot_be_met(wish: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        choose_threshold(RoutedToy(), metadata(), where="a.ckpt", **wish)


def test_models_that_know_no_easy_image():
    plain, cascade = create_model("yolo_fastestv2", 1), RoutedToy(router=False)
    for wish, name in (({"easy": 0.5}, "easy"), ({"dy_thres": 0.5}, "dy_thres")):
        with pytest.raises(ValueError, match=f"a.ckpt: toy is not routed, .*; leave {name} out"):
            choose_threshold(plain, metadata(), where="a.ckpt", **wish)
    with pytest.raises(ValueError, match="a.ckpt: has no router yet"):
        choose_threshold(cascade, metadata(), where="a.ckpt", easy=0.5)
    with pytest.raises(ValueError, match="a.ckpt: YoloFastestV2 is not routed"):
        check_router(plain, "a.ckpt")


def test_another_input_size_is_told(caplog: pytest.LogCaptureFixture):
    model = RoutedToy()
    choose_threshold(model, metadata(thresholds=STORED), where="a.ckpt", easy=0.5)
    assert not caplog.records
    choose_threshold(
        model, metadata(thresholds={**STORED, "size": [64, 64]}), where="a.ckpt", easy=0.5
    )
    assert "measured with input [64, 64], not [32, 32]" in caplog.text


def test_recipes_name_a_threshold():
    assert config_from_mapping({}).eval.dy_thres is None
    assert config_from_mapping({"eval": {"dy_thres": 1}}).eval.dy_thres == 1.0
    with pytest.raises(ValueError, match="eval.dy_thres wanted a number from 0 to 1, got 1.5"):
        config_from_mapping({"eval": {"dy_thres": 1.5}})


@pytest.fixture(scope="module")
def greys(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("greys")
    collector = Collector("greys", ["a"], relative=False, tolerance=0)
    for number, grey in enumerate(GREYS):
        width = SIDE * (1 + number % 2)
        image = np.full((SIDE, width, 3), grey, np.uint8)
        add_photo(collector, folder / f"{number}.png", image, image_id=number + 1)
    return collector.finish()


@pytest.mark.parametrize("rectangular", [False, True])
def test_easiness_of_every_picture_in_order(greys: Dataset, rectangular: bool):
    """Wide images are padded in square batches; rectangular batches hold them in another order and
    in other frames.
    """
    settings = EvalConfig(per_batch_size=2, rectangular=rectangular, rectangular_pad=0.0)
    easiness = measure_easiness(RoutedPredictor(RoutedToy()), greys, settings, workers=0)
    wide = np.arange(len(GREYS)) % 2 == 1
    own = np.array(GREYS) / 255
    np.testing.assert_allclose(easiness[~wide], own[~wide], atol=1e-5)
    # the last batch, with one image, and batches of equal shapes have no padding
    if rectangular:
        assert np.isclose(easiness[wide], own[wide], atol=1e-5).sum() >= 2
    else:
        np.testing.assert_allclose(easiness[wide], (own[wide] + 114 / 255) / 2, atol=1e-5)


def test_a_picture_lost_or_seen_twice_is_noticed():
    rows = np.float32([[2, 0.2], [0, 0.0], [1, 0.1]])
    np.testing.assert_array_equal(by_picture(rows, 3), np.float32([0.0, 0.1, 0.2]))
    for wrong, count in ((rows, 4), (rows[:2], 2), (rows[[0, 1, 2, 2]], 3)):
        with pytest.raises(RuntimeError, match="wanted one each"):
            by_picture(wrong, count)


def test_a_checkpoint_keeps_everything_else(tmp_path: Path):
    values = {"a.weight": np.float32([[1, 2]]), "state.step": np.array(3, np.int64)}
    source, target = tmp_path / "a.ckpt", tmp_path / "b.ckpt"
    save_checkpoint(
        source,
        values,
        CheckpointMetadata("toy", 1, ["x"], epoch=4, extra={"training": {"updates": 7}}),
    )
    before = source.read_bytes()
    store_thresholds(source, target, STORED)
    assert source.read_bytes() == before
    store_thresholds(source, source, STORED)
    for path in (source, target):
        found, about = load_checkpoint(path)
        assert about.extra == {"training": {"updates": 7}, "thresholds": STORED}
        assert (about.epoch, about.class_names) == (4, ["x"])
        assert list(found) == list(values)
        for name, value in values.items():
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt", "b.ckpt"]


def test_table_mixes_the_exits():
    found = Thresholds(
        EASINESS,
        thresholds_of(EASINESS),
        (64, 64),
        RoutedGflops(1.0, 1.0, 11.0),
        Path("p"),
        Path("c"),
    )
    rows = [line.split() for line in found.table().splitlines()[2:13]]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        (f"{100 - 10 * i}", f"{10 * i}", f"{100 - 10 * i:.1f}") for i in range(11)
    ]
    assert [float(row[4]) for row in rows] == [2.0 + i for i in range(11)]

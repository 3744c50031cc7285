"""Batches, order, shards and workers of the loader."""

import errno
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from photos import add_photo

from mindyolo_ext.data.augment.registry import Augmentation, AugmentContext
from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.image_file import write_image
from mindyolo_ext.data.loader import Loader
from mindyolo_ext.data.pipeline import Pipeline, Step, build_pipeline
from mindyolo_ext.data.rooms import SharedRooms
from mindyolo_ext.data.types import Batch, Sample
from mindyolo_ext.data.worker import WorkerProcess
from mindyolo_ext.errors import ConfigError, StuckError
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.registry import families, load_augmentations

SPEC = InputSpec(size=(64, 96), resize="stretch")
STEPS = [
    {"name": "mosaic", "probability": 0.5},
    {"name": "random_affine", "degrees": 5},
    "resize",
    "hsv",
]


def batches(source: Pipeline | Dataset, epoch: int = 0, **keywords: object) -> list[Batch]:
    with Loader(source, **keywords) as loader:
        return list(loader.epoch(epoch))


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second) > 0
    for one, two in zip(first, second, strict=True):
        for name in ("images", "targets", "mask", "indices"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
        assert (one.valid, one.placements, one.paths, one.image_ids) == (
            two.valid,
            two.placements,
            two.paths,
            two.image_ids,
        )


def photos_with(folder: Path, boxes: list[int], ignored: int = 0) -> Dataset:
    """One image per entry with that many boxes, the first ``ignored`` of them ignored."""
    collector = Collector("made", ["a", "b"], relative=True, tolerance=0)
    for number, count in enumerate(boxes):
        path = folder / f"{number}.png"
        add_photo(
            collector,
            path,
            np.full((32, 48, 3), 10 * number, np.uint8),
            [(0.1, 0.2, 0.3 + row / 100, 0.6) for row in range(count)],
            image_id=number + 1,
            labels=[1] * count,
            ignore=[row < ignored for row in range(count)],
        )
    return collector.finish()


def test_batch_content(shapes: Dataset) -> None:
    batch = batches(shapes, input_spec=SPEC, batch_size=4)[1]
    assert (
        batch.images.shape == (4, 3, 64, 96)
        and batch.targets.shape == (4, 8, 5)
        and batch.mask.shape == (4, 8)
    )
    assert {batch.images.dtype, batch.targets.dtype, batch.mask.dtype} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(batch.indices, [4, 5, 6, 7])
    for row, index in enumerate(batch.indices):
        tensor, placement = SPEC.prepare(shapes.load(index).image)
        np.testing.assert_array_equal(batch.images[row], tensor)
        assert batch.placements[row] == placement and batch.paths[row] == shapes.paths[index]
        found = shapes.annotations(index)
        count = len(found.boxes)
        np.testing.assert_array_equal(batch.mask[row], [1] * count + [0] * (8 - count))
        assert not batch.targets[row, count:].any()
        np.testing.assert_array_equal(batch.targets[row, :count, 0], found.labels)
        cx, cy, w, h = batch.targets[row, :count, 1:].T
        boxes = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 1) * (96, 72, 96, 72)
        np.testing.assert_allclose(boxes, found.boxes, atol=1e-4)


def test_no_box_one_box_and_ignored_boxes(tmp_path: Path) -> None:
    (batch,) = batches(photos_with(tmp_path, [0, 1, 4], ignored=1), input_spec=SPEC, batch_size=3)
    np.testing.assert_array_equal(batch.mask.sum(1), [0, 0, 3])
    assert batch.targets.shape[1] == 8
    np.testing.assert_allclose(batch.targets[2, 0], [1, 0.205, 0.4, 0.21, 0.4], atol=1e-6)


@pytest.mark.parametrize(("workers", "kind"), [(0, "thread"), (2, "thread"), (1, "process")])
def test_bytes_are_the_pictures_of_the_floats(shapes: Dataset, workers: int, kind: str) -> None:
    pipeline = build_pipeline(STEPS, SPEC, shapes, seed=8)
    keywords = {"batch_size": 5, "workers": workers, "worker_kind": kind}
    floats = batches(pipeline, batch_size=5, workers=0)
    found = batches(pipeline, pixels="uint8", **keywords)
    assert len(found) == len(floats) and found[-1].valid < 5
    for one, other in zip(found, floats, strict=True):
        assert one.images.dtype == np.uint8 and one.images.shape == (5, 64, 96, 3)
        assert one.size == other.size == (64, 96)
        for row, image in enumerate(one.images):
            wanted = other.images[row] if row < one.valid else SPEC.to_tensor(0 * image)
            np.testing.assert_array_equal(SPEC.to_tensor(image), wanted)
        np.testing.assert_array_equal(one.targets, other.targets)


def test_max_boxes(tmp_path: Path) -> None:
    dataset = photos_with(tmp_path, [2, 17])
    assert Loader(dataset, input_spec=SPEC, batch_size=1).max_boxes == 24
    assert Loader(build_pipeline(["mosaic"], SPEC, dataset), batch_size=1).max_boxes == 72
    with pytest.raises(
        ValueError,
        match=r"1.png: 17 boxes after augmentation, but max_boxes is 16: raise max_boxes "
        r"to 24",
    ):
        batches(dataset, input_spec=SPEC, batch_size=2, max_boxes=16)
    assert batches(dataset, input_spec=SPEC, batch_size=2, max_boxes=17)[0].mask.shape == (2, 17)


@pytest.mark.parametrize(
    ("workers", "kind", "prefetch"), [(1, "thread", 1), (4, "thread", 3), (2, "process", 2)]
)
def test_workers_do_not_change_the_batches(
    shapes: Dataset, workers: int, kind: str, prefetch: int
) -> None:
    pipeline = build_pipeline(STEPS, SPEC, shapes, seed=8)
    shared = {"batch_size": 4, "shuffle": True}
    wanted = [batches(pipeline, epoch, workers=0, **shared) for epoch in (0, 1)]
    with Loader(pipeline, workers=workers, worker_kind=kind, prefetch=prefetch, **shared) as loader:
        for epoch in (0, 1):
            assert_same(list(loader.epoch(epoch)), wanted[epoch])
    assert not np.array_equal(wanted[0][0].indices, wanted[1][0].indices)


@pytest.mark.parametrize("family", [name for name, one in families().items() if one.augmentations])
def test_steps_of_families_work_in_processes(shapes: Dataset, family: str) -> None:
    """A new process has loaded no family, so the pipeline carries the functions of its steps."""
    load_augmentations()
    pipeline = build_pipeline(families()[family].augmentations, SPEC, shapes, seed=8)
    wanted = batches(pipeline, batch_size=4, workers=0)
    assert_same(batches(pipeline, batch_size=4, workers=1, worker_kind="process"), wanted)


def test_restart_at_an_epoch_equals_going_on(shapes: Dataset) -> None:
    pipeline = build_pipeline(STEPS, SPEC, shapes, seed=8)
    shared = {"batch_size": 4, "shuffle": True, "drop_last": True}
    with Loader(pipeline, **shared) as loader:
        run = [list(loader.epoch(epoch)) for epoch in range(3)]
    assert_same(batches(pipeline, 2, **shared), run[2])
    assert not np.array_equal(run[1][0].images, run[2][0].images)


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_the_global_batch(shapes: Dataset, ranks: int, drop_last: bool) -> None:
    pipeline = build_pipeline(STEPS, SPEC, shapes, seed=1)
    shared = {"shuffle": True, "drop_last": drop_last, "workers": 2}
    whole = batches(pipeline, 1, batch_size=2 * ranks, **shared)
    parts = [
        batches(pipeline, 1, batch_size=2, rank=rank, world_size=ranks, **shared)
        for rank in range(ranks)
    ]
    assert {len(part) for part in parts} == {len(whole)}
    for step, batch in enumerate(whole):
        for name in ("images", "targets", "mask", "indices"):
            np.testing.assert_array_equal(
                np.concatenate([getattr(part[step], name) for part in parts]), getattr(batch, name)
            )
        assert sum(part[step].valid for part in parts) == batch.valid
        assert tuple(path for part in parts for path in part[step].paths) == batch.paths


@pytest.mark.parametrize(("batch_size", "ranks"), [(4, 1), (5, 3), (19, 1), (16, 2), (1, 4)])
def test_evaluation_sees_every_image_once(shapes: Dataset, batch_size: int, ranks: int) -> None:
    seen = []
    for rank in range(ranks):
        loader = Loader(
            shapes, input_spec=SPEC, batch_size=batch_size, rank=rank, world_size=ranks, workers=1
        )
        parts = list(loader.epoch(0))
        assert len(parts) == loader.steps_per_epoch == -(-19 // (batch_size * ranks))
        for batch in parts:
            assert (
                batch.images.shape[0] == batch_size
                and len(batch.paths) == len(batch.placements) == batch.valid
            )
            assert (batch.indices[batch.valid :] == -1).all() and not batch.images[
                batch.valid :
            ].any()
            assert not batch.mask[batch.valid :].any()
            seen += batch.indices[: batch.valid].tolist()
        loader.close()
    assert sorted(seen) == list(range(19))


def test_drop_last_and_shuffle(shapes: Dataset) -> None:
    loader = Loader(shapes, input_spec=SPEC, batch_size=4, drop_last=True, shuffle=True, seed=3)
    parts = list(loader.epoch(0))
    assert loader.steps_per_epoch == len(parts) == 4 and all(batch.valid == 4 for batch in parts)
    assert len({index for batch in parts for index in batch.indices.tolist()}) == 16
    assert sorted(loader.order(5)) == list(range(19)) and not np.array_equal(
        loader.order(5), loader.order(6)
    )
    assert not np.array_equal(
        loader.order(5), Loader(shapes, input_spec=SPEC, batch_size=4, shuffle=True).order(5)
    )
    loader.close()


def test_size_schedule(shapes: Dataset) -> None:
    steps = []

    def schedule(step: int) -> tuple[int, int] | None:
        steps.append(step)
        return (96, 128) if step % 2 else None

    for workers in (0, 2):
        steps.clear()
        with Loader(shapes, input_spec=SPEC, batch_size=8, workers=workers) as loader:
            shapes_seen = [
                batch.images.shape[2:] for batch in loader.epoch(1, size_schedule=schedule)
            ]
        assert steps == [0, 1, 2] and shapes_seen == [(64, 96), (96, 128), (64, 96)]
    with pytest.raises(ValueError, match="multiples of 32"):
        list(
            Loader(shapes, input_spec=SPEC, batch_size=8).epoch(
                0, size_schedule=lambda _: (100, 100)
            )
        )


@pytest.mark.parametrize(("workers", "kind"), [(0, "thread"), (2, "thread"), (2, "process")])
def test_broken_image_is_named_and_the_loader_goes_on(
    tmp_path: Path, workers: int, kind: str
) -> None:
    dataset = photos_with(tmp_path, [1] * 12)
    (tmp_path / "7.png").write_bytes(b"\x89PNG broken")
    with Loader(
        dataset, input_spec=SPEC, batch_size=2, workers=workers, worker_kind=kind
    ) as loader:
        epoch = loader.epoch(0)
        for wanted in ([0, 1], [2, 3], [4, 5]):
            assert next(epoch).indices.tolist() == wanted
        with pytest.raises(ValueError, match="7.png: wanted a readable image"):
            next(epoch)
        write_image(tmp_path / "7.png", np.zeros((32, 48, 3), np.uint8))
        assert len(list(loader.epoch(1))) == 6


def _failing(sample: Sample, context: AugmentContext, *, limit: float = 3.0) -> Sample:
    if context.index >= limit:
        raise KeyError("surprise")
    return sample


def test_failing_augmentation_names_the_photo(shapes: Dataset) -> None:
    steps = [Step(Augmentation(_failing), {}), *build_pipeline([], SPEC, shapes).steps]
    pipeline = Pipeline(steps, SPEC, shapes)
    with pytest.raises(
        RuntimeError, match=r"000004.jpg \(image 3, epoch 2\): KeyError: 'surprise'"
    ):
        batches(pipeline, 2, batch_size=4)


def _refusing(_sample: Sample, _context: AugmentContext) -> Sample:
    raise ConfigError("refusing: wanted another value")


@pytest.mark.parametrize(("workers", "kind"), [(0, "thread"), (1, "process")])
def test_an_error_that_the_user_can_mend_keeps_its_kind(
    shapes: Dataset, workers: int, kind: str
) -> None:
    pipeline = Pipeline([Step(Augmentation(_refusing), {})], SPEC, shapes)
    with pytest.raises(
        ConfigError, match=r"000001.jpg \(image 0, epoch 2\): refusing: wanted another value"
    ):
        batches(pipeline, 2, batch_size=4, workers=workers, worker_kind=kind)


class _DeadlyPipeline(Pipeline):
    """End the worker process in epoch 0, as the system does when memory runs out."""

    def __call__(self, index: int, epoch: int = 0, size: tuple[int, int] | None = None) -> Sample:
        if epoch == 0 and index == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(index, epoch, size)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that cannot be caught")
def test_killed_process_is_an_error_not_a_hang(shapes: Dataset) -> None:
    pipeline = _DeadlyPipeline(build_pipeline([], SPEC, shapes).steps, SPEC, shapes)
    with Loader(pipeline, batch_size=2, workers=2, worker_kind="process") as loader:
        with pytest.raises(RuntimeError, match="a worker process ended by itself, exit code -9"):
            list(loader.epoch(0))
        assert len(list(loader.epoch(1))) == 10  # new processes take over


class _StoppedPipeline(Pipeline):
    """Stop the worker process in epoch 0, as ``kill -STOP`` does."""

    def __call__(self, index: int, epoch: int = 0, size: tuple[int, int] | None = None) -> Sample:
        if epoch == 0 and index == 3:
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().__call__(index, epoch, size)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs a signal that stops a process")
def test_stopped_process_is_an_error_not_a_hang(shapes: Dataset) -> None:
    pipeline = _StoppedPipeline(build_pipeline([], SPEC, shapes).steps, SPEC, shapes)
    with Loader(pipeline, batch_size=2, workers=1, worker_kind="process", patience=2.0) as loader:
        with pytest.raises(StuckError, match=r"worker process \d+ did not finish .*000004.jpg in"):
            list(loader.epoch(0))
        assert len(list(loader.epoch(1))) == 10  # a new process takes over


def test_thread_that_hangs_is_an_error_with_the_files_name(shapes: Dataset) -> None:
    answer = threading.Event()

    def wait_for_the_disk(sample: Sample, context: AugmentContext) -> Sample:
        if context.index == 3:
            answer.wait()
        return sample

    resize = build_pipeline([], SPEC, shapes).steps
    waiting = Step(Augmentation(wait_for_the_disk), {})
    pipeline = Pipeline([waiting, *resize], SPEC, shapes)
    with Loader(pipeline, batch_size=2, workers=2, patience=0.5) as loader:
        with pytest.raises(StuckError, match="no image was finished .*wait for .*000004.jpg"):
            list(loader.epoch(0))
        answer.set()


def test_early_break_cleans_up(shapes: Dataset) -> None:
    before = set(threading.enumerate())
    with Loader(shapes, input_spec=SPEC, batch_size=2, workers=3, prefetch=4) as loader:
        for batch in loader.epoch(0):
            taken = batch
            break
        assert taken.valid == 2
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("collate")]
        # nothing is left over from the broken epoch
        assert_same(list(loader.epoch(0))[:1], [taken])
    assert set(threading.enumerate()) <= before


def test_no_more_than_prefetch_is_prepared(
    shapes: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    load = shapes.load
    monkeypatch.setattr(shapes, "load", lambda index: loaded.append(index) or load(index))
    with Loader(shapes, input_spec=SPEC, batch_size=2, workers=2, prefetch=2) as loader:
        epoch = loader.epoch(0)
        next(epoch)
        threading.Event().wait(0.3)
        assert len(loaded) == 6  # the one in use and two ahead
        epoch.close()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"prefetch": 0}, "prefetch must be at least 1"),
        ({"workers": -1}, "workers must be at least 0"),
        ({"rank": 2, "world_size": 2}, "rank must be below world_size 2"),
        ({"pixels": "bytes"}, "pixels must be float32 or uint8, got 'bytes'"),
        ({"worker_kind": "fork"}, "worker_kind must be thread or process, got 'fork'"),
        ({"max_boxes": 0}, "max_boxes must be at least 1"),
        ({"input_spec": None}, "needs an input_spec"),
        ({"batch_size": 20, "drop_last": True}, "at least one whole batch"),
    ],
)
def test_faulty_settings(shapes: Dataset, keywords: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Loader(shapes, **{"input_spec": SPEC, "batch_size": 2, **keywords})


def test_faulty_sources(shapes: Dataset) -> None:
    with pytest.raises(TypeError, match="wanted a Pipeline or a Dataset, got list"):
        Loader([], input_spec=SPEC, batch_size=1)
    with pytest.raises(ValueError, match="its own input_spec"):
        Loader(build_pipeline([], SPEC, shapes), input_spec=InputSpec(), batch_size=1)


needs_shared_memory = pytest.mark.skipif(
    not hasattr(os, "memfd_create"), reason="needs memory without a name"
)


@needs_shared_memory
@pytest.mark.parametrize("pixels", ["uint8", "float32"])
def test_processes_write_into_shared_memory(
    shapes: Dataset, pixels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = build_pipeline(STEPS, SPEC, shapes, seed=8)
    wanted = batches(pipeline, batch_size=8, workers=0, pixels=pixels)
    rows = []
    prepare = WorkerProcess.prepare
    monkeypatch.setattr(
        WorkerProcess, "prepare", lambda *given: rows.append(prepare(*given)) or rows[-1]
    )
    keywords = {"batch_size": 8, "workers": 2, "worker_kind": "process", "pixels": pixels}
    assert_same(batches(pipeline, **keywords), wanted)
    assert len(rows) == len(shapes) and all(row.image is None for row in rows)
    assert wanted[-1].valid == 3 and not wanted[-1].images[3:].any()


def test_images_come_through_pipes_where_no_memory_is_shared(
    shapes: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = batches(shapes, input_spec=SPEC, batch_size=8, workers=0, pixels="uint8")
    monkeypatch.delattr(os, "memfd_create", raising=False)
    keywords = {"batch_size": 8, "workers": 1, "worker_kind": "process", "pixels": "uint8"}
    assert_same(batches(shapes, input_spec=SPEC, **keywords), wanted)


@needs_shared_memory
def test_too_little_shared_memory_is_said(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    room = SharedRooms(2, 10**9).take((2, 4, 4, 3))
    assert room.place is None and room.images.shape == (2, 4, 4, 3)
    assert (
        "cannot allocate 5.0 GB of shared memory for batches (No space left on device)"
        in caplog.text
    )


@needs_shared_memory
def test_a_room_is_free_once_nobody_looks_at_it() -> None:
    rooms = SharedRooms(1, 48)
    taken = [rooms.take((1, 4, 4, 3)) for _ in range(5)]
    starts = [room.place.start for room in taken[:4]]
    assert taken[4].place is None  # all four are in use
    row = taken[1].images[0, 1:]
    taken.clear()
    again = [rooms.take((1, 4, 4, 3)).place for _ in range(1)]
    held = [rooms.take((1, 4, 4, 3)) for _ in range(4)]
    row[:] = 7
    assert again[0].start in starts
    assert {room.place.start for room in held[:3]} == set(starts) - {starts[1]}
    assert held[3].place is None and not any((room.images == 7).all() for room in held[:3])


@pytest.mark.parametrize(("workers", "kind"), [(0, "thread"), (1, "thread"), (1, "process")])
def test_opencv_has_as_many_threads_as_wanted(shapes: Dataset, workers: int, kind: str) -> None:
    before = cv2.getNumThreads()
    resize = build_pipeline([], SPEC, shapes).steps
    pipeline = Pipeline([Step(Augmentation(_as_dark_as_threads), {}), *resize], SPEC, shapes)
    cv2.setNumThreads(3)
    try:
        for threads in (1, 2):
            (first, *_) = batches(
                pipeline,
                batch_size=2,
                workers=workers,
                worker_kind=kind,
                opencv_threads=threads,
                pixels="uint8",
            )
            assert (first.images == threads).all()
            assert cv2.getNumThreads() == 3  # as before
    finally:
        cv2.setNumThreads(before)


def _as_dark_as_threads(sample: Sample, _context: AugmentContext) -> Sample:
    return replace(sample, image=np.full_like(sample.image, cv2.getNumThreads()))

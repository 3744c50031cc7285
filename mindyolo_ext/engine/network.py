"""Load a network to run: a checkpoint on the framework, or an exported file in its runtime. A
framework is imported only if it runs the network.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mindyolo_ext.checkpoint.metadata import CheckpointMetadata
from mindyolo_ext.contracts import Predictor
from mindyolo_ext.errors import ConfigError, UsageError
from mindyolo_ext.framework import FRAMEWORKS
from mindyolo_ext.runtimes.file import ExportedFile, read_exported
from mindyolo_ext.runtimes.load import open_predictor, with_size
from mindyolo_ext.runtimes.names import EXPORTED, is_exported, runtime_of

if TYPE_CHECKING:
    from mindyolo_ext.config import Config

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Network:
    """A network ready to run.

    Args:
        predictor: from images to boxes.
        metadata: of its checkpoint or exported file.
        place: runtime and device, for messages.
    """

    predictor: Predictor
    metadata: CheckpointMetadata
    place: str


def load_network(
    weight: str | Path,
    *,
    runtime: str | None = None,
    device_target: str | None = None,
    backend: str | None = None,
    size: tuple[int, int] | None = None,
    threads: int = 0,
    dy_thres: float | None = None,
    easy: float | None = None,
) -> Network:
    """Load a checkpoint or an exported file for ``Detector``.

    Args:
        weight: ``.ckpt`` or ``.safetensors`` of this project, or a file of ``mindyolo-ext export``.
        runtime: one of ``runtimes.names.RUNTIMES``; None uses the default of the file.
        device_target: ``CPU``, ``GPU`` or ``Ascend``; None uses the best one for the framework, and
            the CPU for another runtime.
        backend: ``mindspore`` or ``torch``, to require it.
        size: (height, width) of the input, by default the file's.
        threads: of a runtime that is not a framework; 0 uses its default.
        dy_thres, easy: for a routed model, as in ``Detector``.

    Raises: UserError for a file or route that does not fit; DeviceError for a runtime that is not
        available.
    """
    weight = Path(weight)
    chosen = runtime_of(weight, runtime)
    if chosen in EXPORTED:
        refuse_backend(chosen, backend)
        with exported_copy(weight, chosen, size=size) as file:
            predictor = open_predictor(
                file,
                chosen,
                input_spec=with_size(file, size),
                device=device_target or "CPU",
                threads=threads,
                dy_thres=dy_thres,
                easy=easy,
            )
        return Network(predictor, file.metadata, f"{chosen} on {device_target or 'CPU'}")
    return _on_framework(
        weight,
        backend=backend or chosen,
        device_target=device_target,
        size=size,
        dy_thres=dy_thres,
        easy=easy,
    )


def _on_framework(
    weight: Path,
    *,
    backend: str | None,
    device_target: str | None,
    size: tuple[int, int] | None,
    dy_thres: float | None,
    easy: float | None,
) -> Network:
    """Load a checkpoint on the framework of this process."""
    from mindyolo_ext.backend import BACKEND, launch
    from mindyolo_ext.backend.choice import check_backend
    from mindyolo_ext.backend.lock import framework_lock
    from mindyolo_ext.engine.build import load_model
    from mindyolo_ext.engine.routing import new_predictor
    from mindyolo_ext.engine.thresholds import choose_threshold

    check_backend(backend)
    with framework_lock:
        launch.start(device_target)
        model, metadata = load_model(weight)
    if size is not None:
        model.input_spec = replace(model.input_spec, size=size)
    threshold = choose_threshold(model, metadata, where=weight, dy_thres=dy_thres, easy=easy)
    with framework_lock:
        predictor = new_predictor(model, dy_thres=threshold)
    return Network(predictor, metadata, f"{BACKEND} on {launch.device()}")


@contextmanager
def exported_copy(
    weight: Path, runtime: str, *, size: tuple[int, int] | None = None
) -> Iterator[ExportedFile]:
    """``weight`` itself if it is an exported file; for a checkpoint, a temporary copy for
    ``runtime``, which is deleted at the end of the block.

    Raises: UsageError; ExportError for a copy that differs from the checkpoint.
    """
    if is_exported(weight):
        yield read_exported(weight)
        return
    from mindyolo_ext.engine.export import export

    kind = EXPORTED[runtime].format
    if not kind:
        raise UsageError(
            f"{weight}: TensorRT builds its engine on the machine that runs it: `mindyolo-ext "
            "export --format onnx`, then deploy/build_tensorrt.py, and give the .engine"
        )
    logger.info(
        "%s: exporting a copy for %s; `mindyolo-ext export --weight %s --format %s` keeps one, "
        "which starts faster",
        weight,
        runtime,
        weight,
        kind,
    )
    with TemporaryDirectory(prefix="mindyolo_ext-", ignore_cleanup_errors=True) as folder:
        report = export(weight, [kind], output=Path(folder) / weight.stem, size=size)
        yield read_exported(next(iter(report.files.values())))


def read_metadata(weight: str | Path) -> CheckpointMetadata:
    """Read the metadata of a checkpoint or an exported file.

    Raises: as ``load_checkpoint`` and ``read_exported``.
    """
    from mindyolo_ext.checkpoint.store import load_checkpoint

    weight = Path(weight)
    return read_exported(weight).metadata if is_exported(weight) else load_checkpoint(weight)[1]


def refuse_backend(runtime: str, backend: str | None) -> None:
    """Raises: UsageError if a framework is requested for a runtime that is not one."""
    if backend is not None and backend in FRAMEWORKS and runtime != "mindir":
        raise UsageError(
            f"backend {backend}: {runtime} runs the file without a framework; leave one of them out"
        )


def network_for_test(
    weight: Path,
    config: "Config",
    *,
    runtime: str | None = None,
    device: str = "CPU",
    easy: float | None = None,
    needs_router: bool = False,
) -> Network:
    """Load a checkpoint or exported file with the input, the route and the precision of a recipe.

    Args:
        runtime: as in ``load_network``; the framework must have been started.
        device: for a runtime that is not a framework.
        easy: target share of easy images, instead of the recipe's threshold.
        needs_router: refuse an exported file, and a model without a router.

    Raises: as ``load_network``; ConfigError if the model is not the recipe's.
    """
    from mindyolo_ext.engine.datasets import with_input  # not needed by predict

    chosen = runtime_of(weight, runtime)
    dy_thres = config.eval.dy_thres if easy is None else None
    if chosen not in EXPORTED:
        return _checkpoint_for_test(
            weight, config, dy_thres=dy_thres, easy=easy, needs_router=needs_router
        )
    if needs_router:
        raise UsageError(
            f"{weight}: --curve runs both exits on every image, which exported files cannot; use "
            "the checkpoint without --runtime"
        )
    with exported_copy(weight, chosen, size=tuple(config.input.size) or None) as file:
        _check_model(weight, file.metadata, config)
        predictor = open_predictor(
            file,
            chosen,
            input_spec=with_input(file.metadata.input_spec, config.input),
            device=device,
            dy_thres=dy_thres,
            easy=easy,
        )
    return Network(predictor, file.metadata, f"{chosen} on {device}")


def _checkpoint_for_test(
    weight: Path,
    config: "Config",
    *,
    dy_thres: float | None,
    easy: float | None,
    needs_router: bool,
) -> Network:
    """Load a checkpoint on the framework, which must have been started."""
    from mindyolo_ext.backend import precision
    from mindyolo_ext.backend.launch import device
    from mindyolo_ext.engine.build import load_model
    from mindyolo_ext.engine.routing import new_predictor
    from mindyolo_ext.engine.thresholds import check_router, choose_threshold

    model, metadata = load_model(weight, config)
    if needs_router:
        check_router(model, weight)
    threshold = choose_threshold(model, metadata, where=weight, easy=easy, dy_thres=dy_thres)
    predictor = new_predictor(model, fold=config.eval.fold, dy_thres=threshold)
    precision.apply(predictor.network, config.train.amp_level, config.train.amp_dtype)
    return Network(predictor, metadata, device())


def _check_model(weight: Path, metadata: CheckpointMetadata, config: "Config") -> None:
    """Raises: ConfigError if the model is not the recipe's."""
    if config.model.name and config.model.name != metadata.model:
        raise ConfigError(
            f"{weight}: holds {metadata.model}, but the recipe names {config.model.name}"
        )


def recipe_of_weight(weight: Path) -> Path:
    """Return the shipped recipe for the model of a mindyolo_ext checkpoint or exported file."""
    from mindyolo_ext.config.shipped import recipe_of_model  # prediction loads no recipes
    from mindyolo_ext.models.registry import list_models

    return Path(recipe_of_model(read_metadata(weight).model, list_models()))

"""Options and fixtures of the whole test suite."""

import ctypes
import gc
import importlib.util
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import ledger
import pytest
from helpers import (
    DEFAULT_GOLDEN,
    REPOSITORY,
    Command,
    Golden,
    golden_cases,
    shared_folder,
)
from modes import as_graph
from parts import PARTS, select

from mindyolo_ext.backend import launch
from mindyolo_ext.backend.choice import BACKEND
from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.shapes import make_shapes_dataset

TESTS = REPOSITORY / "tests"
MODELS = TESTS / "models"
RECORD = pytest.StashKey[ledger.Record]()
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        type=Path,
        default=DEFAULT_GOLDEN,
        help="folder of reference arrays, laid out like tests/golden (the default)",
    )
    parser.addoption(
        "--all-cases",
        action="store_true",
        help="run the tests marked all_cases too, and compile a graph wherever one is meant",
    )
    parser.addoption(
        "--device",
        choices=("CPU", "GPU"),
        default="CPU",
        help="where networks run; on a GPU PyTorch computes float32 without TF32",
    )
    parser.addoption("--part", choices=PARTS, help="only the tests of one process of test-all")
    parser.addoption("--record", type=Path, help="write here which reference arrays were read")


def pytest_configure(config: pytest.Config) -> None:
    if BACKEND == "torch":
        run_on_one_thread()
    config.stash[RECORD] = ledger.Record()
    config.stash[RECORD].watch_files()
    if config.pluginmanager.has_plugin("xdist"):
        config.pluginmanager.register(LedgerOfWorkers())
    config.pluginmanager.register(FailuresAtOnce(config))
    config.addinivalue_line(
        "markers", "all_cases: a slow repetition of a test on further cases; needs --all-cases"
    )
    config.addinivalue_line(
        "markers", "needs_mindspore: of MindSpore itself; skipped on other backends"
    )
    config.addinivalue_line("markers", "needs_torch: of PyTorch itself; skipped on other backends")
    config.addinivalue_line(
        "markers",
        "graph(when='always'): cells are compiled; otherwise operators run one by one, as they do "
        "without the mark. when='smallest': for the usual case of the variants in the module's "
        "GRAPH_VARIANTS, and with --all-cases; 'all_cases': with --all-cases; 'never'.",
    )
    if config.getoption("--device") != "CPU":
        launch.start(config.getoption("--device"))
        if BACKEND == "torch":
            from mindyolo_ext.backend.on_torch.device import exact_float32

            exact_float32()
    if not config.getoption("--golden").is_dir():
        raise pytest.UsageError(f"--golden: no folder {config.getoption('--golden')}")


def run_on_one_thread() -> None:
    """Use one thread, as the programs that made the reference arrays did: another number of threads
    sums in another order, which changes the gradients of a deep seeded network in their second
    digit. On two cores it is also faster for two processes.
    """
    import torch

    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for programs that tests start


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let ``-k <family>`` select all tests in a family's folder."""
    if MODELS in item.path.parents:
        item.extra_keyword_matches.update(item.path.relative_to(MODELS).parts[:-1])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if part := config.getoption("--part"):
        kept = select(items, part)
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept
    for item in items:
        if {"needs_mindspore", "needs_torch"} & set(item.keywords) - {f"needs_{BACKEND}"}:
            item.add_marker(pytest.mark.skip(reason=f"the backend is {BACKEND}"))
    if not config.getoption("--all-cases"):
        for item in items:
            if "all_cases" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="a further case, run with --all-cases"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a fixture ``golden_case`` over the seeded cases of the module's ``FAMILY``.

    If the module defines ``QUICK_VARIANTS``, the other variants of the default folder are marked
    all_cases.
    """
    if "golden_case" in metafunc.fixturenames:
        quick = getattr(metafunc.module, "QUICK_VARIANTS", None)
        cases = [
            pytest.param(
                case,
                id=str(case),
                marks=[pytest.mark.all_cases]
                if case.default and quick and case.variant not in quick
                else [],
            )
            for case in golden_cases(
                metafunc.config.getoption("--golden"),
                metafunc.module.FAMILY,
                metafunc.config.stash[RECORD],
            )
        ]
        metafunc.parametrize("golden_case", cases, scope="module")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Choose the execution mode before the first fixture runs, whatever the previous test left."""
    name = getattr(item, "originalname", item.name)
    item.config.stash[RECORD].test = f"{item.path.relative_to(TESTS).as_posix()}::{name}"
    with as_graph(wants_graph(item)):
        return (yield)


def pytest_fixture_post_finalizer(fixturedef: pytest.FixtureDef) -> None:
    """Cells refer to each other, so without this a case's network would stay in memory beside the
    next one.
    """
    if fixturedef.argname == "golden_case":
        give_memory_back()


@pytest.fixture(scope="module", autouse=True)
def memory_of_a_module() -> Iterator[None]:
    """Free the memory that a file's tests used; another process may run the next file."""
    yield
    give_memory_back()


def give_memory_back() -> None:
    """Free reference cycles and the memory that the C library keeps for later."""
    gc.collect()
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)


def wants_graph(item: pytest.Item) -> bool:
    """Whether the test's cells are compiled, according to its mark ``graph``."""
    mark = item.get_closest_marker("graph")
    when = mark.kwargs.get("when", "always") if mark else "never"
    if when == "smallest":
        callspec = getattr(item, "callspec", None)
        case = callspec.params.get("golden_case") if callspec else None
        if case is not None and case.is_plain and case.variant in item.module.GRAPH_VARIANTS:
            return True
    return when == "always" or when != "never" and item.config.getoption("--all-cases")


class LedgerOfWorkers:
    """Collect what the workers of pytest-xdist have read."""

    def pytest_testnodedown(self, node: object, error: object) -> None:  # noqa: ARG002
        output = getattr(node, "workeroutput", {})
        node.config.stash[RECORD].merge(output.get("reads", {}))


class FailuresAtOnce:
    """Names a failure when it happens: a run that is ended from outside prints no summary."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal:
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = (crash.message if crash else str(report.longrepr)).strip().partition("\n")[0]
            terminal.write_line(f"\nFAILED {report.nodeid} ({report.when}): {reason}", red=True)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a complete run without failures if the ledger names an array that no test read."""
    config, record = session.config, session.config.stash[RECORD]
    if hasattr(config, "workeroutput"):
        config.workeroutput["reads"] = record.plain()
        return
    if path := config.getoption("--record"):
        path.write_text(json.dumps(record.plain()), encoding="utf-8")
    if exitstatus == 0 and is_whole(config):
        missing = ledger.missing(
            record, all_cases=config.getoption("--all-cases"), shared=shared_folder() is not None
        )
        if missing:
            config.get_terminal_writer().line("\n" + "\n".join(missing))
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def is_whole(config: pytest.Config) -> bool:
    """Whether all tests of the suite run, on the default arrays."""
    chosen = ("keyword", "markexpr", "deselect", "lf", "collectonly", "part", "ignore")
    return (
        config.args_source == pytest.Config.ArgsSource.TESTPATHS
        and config.getoption("--golden").resolve() == DEFAULT_GOLDEN
        and not any(config.getoption(name, None) for name in chosen)
    )


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Golden:
    """The chosen folder of reference arrays."""
    return Golden(request.config.getoption("--golden"), request.config.stash[RECORD])


@pytest.fixture(scope="session")
def all_cases(request: pytest.FixtureRequest) -> bool:
    """Whether every graph is compiled, as with ``--all-cases``."""
    return request.config.getoption("--all-cases")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of published weights and photos, MINDYOLO_EXT_SHARED or ../shared; the test is
    skipped without it.
    """
    folder = shared_folder()
    if folder is None:
        pytest.skip("no published weights: no folder MINDYOLO_EXT_SHARED or ../shared")
    return folder


@pytest.fixture
def quiet_logging() -> Iterator[None]:
    """Restore the root logger, which every call of ``cli.main`` sets up again."""
    root, package = logging.getLogger(), logging.getLogger("matplotlib")
    handlers, level, other = root.handlers[:], root.level, package.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    package.setLevel(other)


@pytest.fixture
def command(capsys: pytest.CaptureFixture) -> Command:
    """``command("verb", ...)`` -> (exit status, what was printed)."""
    from mindyolo_ext.cli import main

    def run(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        try:
            status = main([str(a) for a in arguments])
        except SystemExit as leaving:  # argparse
            status = leaving.code
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return run


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """The recipes that ``train`` would train, and the arguments the framework was started with."""
    from mindyolo_ext.backend.processes import World

    started: dict[str, Any] = {}
    found: list[tuple[Any, dict[str, Any]]] = []

    def start(device_target: str | None = None, **keywords: Any) -> World:
        started.update(keywords, device_target=device_target)
        return World()

    def train(config: Any, folder: Path, **_: Any) -> None:
        found.append((config, {**started, "save_dir": folder}))

    monkeypatch.setattr(launch, "start", start)
    monkeypatch.setattr("mindyolo_ext.engine.train.train", train)
    return found


@pytest.fixture(scope="session")
def runner() -> ModuleType:
    """The program deploy/onnx_runtime.py as a module."""
    return _deploy_program("onnx_runtime")


@pytest.fixture(scope="session")
def routed_runner() -> ModuleType:
    """The program deploy/routed_runtime.py as a module."""
    return _deploy_program("routed_runtime")


def _deploy_program(name: str) -> ModuleType:
    """A program of deploy/ as a module."""
    spec = importlib.util.spec_from_file_location(
        f"deploy_{name}", REPOSITORY / "deploy" / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    path = sys.path[:]
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """19 + 5 drawn images, in every label form."""
    return make_shapes_dataset(
        tmp_path_factory.mktemp("shapes"),
        train_images=19,
        val_images=5,
        size=(72, 96),
        seed=3,
        progress=False,
    )


@pytest.fixture
def shapes(shapes_folder: Path) -> Dataset:
    """The 19 training images."""
    return build_dataset(
        {"format": "coco", "images": "images/train", "annotations": "annotations/train.json"},
        shapes_folder,
    )


@pytest.fixture(scope="session")
def real_data(shared: Path) -> Path:
    """The folder with coco_val128, coco128 and bccd; the test is skipped without it."""
    if not (shared / "data").is_dir():
        pytest.skip(f"no real data in {shared}")
    return shared / "data"

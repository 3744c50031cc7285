"""Options and fixtures of the whole suite."""

import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from helpers import DEFAULT_GOLDEN, Command, Golden, golden_cases

from mindyolo_ext.backend.mode import graphs
from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.shapes import make_shapes_dataset

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        type=Path,
        default=DEFAULT_GOLDEN,
        help="folder of reference arrays, laid out like tests/golden (the default)",
    )
    parser.addoption("--all-cases", action="store_true", help="run the tests marked all_cases too")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "all_cases: a slow repetition of a test on further cases; needs --all-cases"
    )
    if not config.getoption("--golden").is_dir():
        raise pytest.UsageError(f"--golden: no folder {config.getoption('--golden')}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--all-cases"):
        for item in items:
            if "all_cases" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="a further case, run with --all-cases"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A fixture ``golden_case`` runs over the seeded cases of the module's ``FAMILY``.

    Where the module names ``QUICK_VARIANTS``, the other variants of the default folder are marked
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
            for case in golden_cases(metafunc.config.getoption("--golden"), metafunc.module.FAMILY)
        ]
        metafunc.parametrize("golden_case", cases, scope="module")


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Golden:
    """The chosen folder of reference arrays."""
    return Golden(request.config.getoption("--golden"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of published weights and photos, MINDYOLO_EXT_SHARED or ../shared; the test is
    skipped without it.
    """
    folder = Path(os.environ.get("MINDYOLO_EXT_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no published weights at {folder}")
    return folder


@pytest.fixture(scope="module")
def graph_mode() -> Iterator[None]:
    """Cells run as graphs during the module's tests."""
    with graphs():
        yield


@pytest.fixture
def quiet_logging() -> Iterator[None]:
    """Put the root logger back as it was; every call of ``cli.main`` sets it up anew."""
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
    """19 + 5 drawn pictures, in every label form."""
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
    """The 19 training pictures."""
    return build_dataset(
        {"format": "coco", "images": "images/train", "annotations": "annotations/train.json"},
        shapes_folder,
    )


@pytest.fixture(scope="session")
def real_data(shared: Path) -> Path:
    """Folder with coco_val128, coco128 and bccd; skips without it."""
    if not (shared / "data").is_dir():
        pytest.skip(f"no real data in {shared}")
    return shared / "data"

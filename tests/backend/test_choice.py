"""The backend is chosen by name; a wrong one is told."""

import pytest

from mindyolo_ext.backend.choice import BACKENDS, chosen


def test_backends_by_name():
    assert [chosen(name) for name in ("", *BACKENDS)] == ["mindspore", "mindspore", "shapes"]
    with pytest.raises(ValueError, match="MINDYOLO_EXT_BACKEND=torhc: no such backend; known: mi"):
        chosen("torhc")

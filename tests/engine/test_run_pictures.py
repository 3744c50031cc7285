"""A picture that cannot be drawn does not end a run."""

from mindyolo_ext.engine import run_pictures
from mindyolo_ext.engine.run_pictures import RunPictures


def test_a_picture_that_fails_costs_a_warning(tmp_path, monkeypatch, caplog):
    def plot_labels(dataset, path):  # noqa: ARG001
        raise ModuleNotFoundError("No module named 'deprecate'")

    monkeypatch.setattr(run_pictures, "plot_labels", plot_labels)
    RunPictures(tmp_path, None, wanted=True).labels()
    assert caplog.messages == [
        "a picture was not drawn: ModuleNotFoundError: No module named 'deprecate'"
    ]
    RunPictures(tmp_path, None, wanted=False).labels()
    assert len(caplog.messages) == 1

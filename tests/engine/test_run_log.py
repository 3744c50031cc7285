"""``run.log``: which messages it gets, and that logging is restored afterwards."""

import logging

import pytest

from mindyolo_ext.engine.run_log import NAME, run_log

PACKAGE = logging.getLogger("mindyolo_ext")
SOMEWHERE = logging.getLogger("mindyolo_ext.somewhere")


def lines(folder):
    text = (folder / NAME).read_text(encoding="utf-8")
    return [line.split(" ", 2)[2] for line in text.splitlines()]  # without date and time


def test_it_holds_what_was_said_before_the_file_was_there(tmp_path, caplog):
    with caplog.at_level(logging.INFO), run_log() as log:
        SOMEWHERE.info("before")
        log.open(tmp_path)
        SOMEWHERE.warning("after\x1b[31m")
        logging.getLogger("other.package").warning("not ours")
    SOMEWHERE.warning("too late")
    assert lines(tmp_path) == ["INFO before", "WARNING after\\x1b[31m"]


def test_a_resumed_run_goes_on_in_it_and_an_error_ends_it(tmp_path, caplog):
    (tmp_path / NAME).write_text("2026-01-01 00:00:00,000 INFO first run\n", encoding="utf-8")
    with caplog.at_level(logging.INFO), pytest.raises(ValueError), run_log() as log:
        log.open(tmp_path)
        raise ValueError("no\x1b good")
    assert lines(tmp_path) == ["INFO first run", "ERROR the run ended: no\\x1b good"]
    assert PACKAGE.handlers == []


def test_a_run_that_never_begins_leaves_no_file(tmp_path):
    with pytest.raises(ValueError), run_log():
        SOMEWHERE.warning("bad recipe")
        raise ValueError
    with run_log(wanted=False):
        SOMEWHERE.warning("of another rank")
        assert PACKAGE.handlers == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("configured", [False, True])
def test_the_file_has_all_and_the_screen_what_it_had(
    tmp_path, monkeypatch, capsys, caplog, configured
):
    """Without any logging setup, Python prints warnings on the screen."""
    caplog.set_level(logging.WARNING)  # of the root, which other tests may have set
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own are there
    if configured:
        logging.basicConfig(format="%(message)s")
    with run_log() as log:
        log.open(tmp_path)
        SOMEWHERE.info("an epoch")
        SOMEWHERE.debug("a detail")
        SOMEWHERE.warning("a doubt")
    assert lines(tmp_path) == ["INFO an epoch", "WARNING a doubt"]
    SOMEWHERE.warning("afterwards")
    assert capsys.readouterr().err.splitlines() == ["a doubt", "afterwards"]
    assert PACKAGE.level == logging.NOTSET and PACKAGE.handlers == [] and PACKAGE.propagate


def test_details_that_are_shown_are_taken_down(tmp_path, caplog):
    with caplog.at_level(logging.DEBUG), run_log() as log:
        log.open(tmp_path)
        SOMEWHERE.debug("a detail")
    assert lines(tmp_path) == ["DEBUG a detail"] and caplog.messages == ["a detail"]

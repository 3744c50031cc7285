"""Which files a source means, and where the results go."""

import os
from pathlib import Path

import pytest

from mindyolo_ext.data.image_file import IMAGE_SUFFIXES
from mindyolo_ext.engine.remote import Remote
from mindyolo_ext.engine.sources import (
    VIDEO_SUFFIXES,
    claim_folder,
    find_sources,
    name_outputs,
    survey,
)
from mindyolo_ext.errors import (
    DataError,
    ExistingFileError,
    MissingFileError,
    UsageError,
    WriteError,
)


def touch(*paths: Path) -> list[Path]:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return list(paths)


def names(paths: list[Path], top: Path) -> list[str]:
    return [path.relative_to(top).as_posix() for path in paths]


# ---- find_sources --------------------------------------------------------------------------------


def test_folder_gives_its_own_pictures_and_videos_sorted(tmp_path: Path):
    wanted = touch(*(tmp_path / f"x{suffix}" for suffix in IMAGE_SUFFIXES + VIDEO_SUFFIXES))
    wanted += touch(tmp_path / "A.JPG")
    touch(tmp_path / "a.heic", tmp_path / "b.HEIC", tmp_path / "notes", tmp_path / "sub" / "c.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link").symlink_to("sub")
    found = survey(tmp_path)
    assert found.paths == sorted(wanted)
    assert found.not_looked_at() == (
        "3 files of other suffixes (2 with .heic, 1 with none): a.heic, b.HEIC, notes; "
        "3 subfolders, which --recursive includes: folder.jpg, link, sub"
    )


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("p/*/b.jpg", ["p/one/b.jpg", "p/two/b.jpg"]),
        ("p/**/*.jpg", ["p/a.jpg", "p/one/b.jpg", "p/one/deep/b.jpg", "p/two/b.jpg"]),
        ("p/**", ["p/a.jpg", "p/one/b.jpg", "p/one/deep/b.jpg", "p/two/b.jpg"]),
        ("*/one/?.jpg", ["p/one/b.jpg"]),
        ("p/[ab].jpg", ["p/a.jpg"]),
        ("p/t[uvw]o/*", ["p/two/b.jpg"]),
    ],
)
def test_patterns_in_any_part(tmp_path: Path, pattern: str, wanted: list[str]):
    places = ("a.jpg", "one/b.jpg", "one/deep/b.jpg", "one/notes.txt", "two/b.jpg")
    touch(*(tmp_path / "p" / place for place in places))
    (tmp_path / "p" / "two" / "loop").symlink_to("..")
    assert names(find_sources(tmp_path / pattern), tmp_path) == wanted


def test_several_sources(tmp_path: Path):
    touch(*(tmp_path / name for name in ("p/b.jpg", "p/a.jpg", "q/c.jpg", "q/d.heic")))
    found = survey([tmp_path / "q", tmp_path / "p" / "b.jpg", tmp_path / "p"])
    assert names(found.paths, tmp_path) == ["q/c.jpg", "p/b.jpg", "p/a.jpg"]
    assert names(found.other_files, tmp_path) == ["q/d.heic"]
    found = survey([tmp_path / "q" / "d.heic", tmp_path / "p", tmp_path / "none"])
    assert names(found.paths, tmp_path) == ["p/a.jpg", "p/b.jpg"]
    other, missing = found.problems
    assert "d.heic: wanted an image" in other
    assert "none: no image or video there" in missing
    with pytest.raises(MissingFileError, match="none: no image or video there"):
        find_sources([tmp_path / "none", tmp_path / "q" / "d.heic"])
    with pytest.raises(UsageError, match="wanted a source"):
        find_sources([])


def test_pattern_beside_the_working_folder_and_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    touch(tmp_path / "a.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_sources("*.jpg") == [Path("a.jpg")]
    assert find_sources("~/*.jpg") == find_sources("~") == [tmp_path / "a.jpg"]


@pytest.mark.parametrize("folder", ["a[1]", "what?", "st*r", "~"])
def test_name_that_exists_is_no_pattern(
    tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / folder / "a[1].jpg", tmp_path / "a1" / "b.jpg", tmp_path / "star" / "b.jpg")
    wanted = [Path(folder, "a[1].jpg")]
    assert find_sources(folder) == wanted
    assert find_sources(f"{folder}/*.jpg") == wanted
    assert find_sources(f"{folder}/a[1].jpg") == wanted


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("none.jpg", MissingFileError, "none.jpg: no image .* there, no such file or folder"),
        ("link.jpg", MissingFileError, "link.jpg: no image .* no such file or folder"),
        ("n" * 300, MissingFileError, "no such file or folder"),
        ("a\0b", MissingFileError, r"a\\x00b: .*no such file or folder"),
        ("none/*.jpg", MissingFileError, "no image or video there$"),
        ("empty", MissingFileError, "empty: no image or video there$"),
        ("other", MissingFileError, "there, only 1 file .*: a.heic; 1 subfolder, .*: deep$"),
        ("other/a.heic", UsageError, r"a.heic: wanted an image \(.bmp, "),
        ("p**/a", UsageError, "no such pattern"),
        ("ftp://example.org/a.jpg", UsageError, "begins with one of http://, https://, rtsp://"),
        ("file:///etc/passwd", UsageError, "begins with one of http://"),
    ],
)
def test_source_that_means_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, kind: type, message: str
):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "other" / "a.heic", tmp_path / "other" / "deep" / "b.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link.jpg").symlink_to("nowhere")
    with pytest.raises(kind, match=message):
        find_sources(source)


# ---- name_outputs --------------------------------------------------------------------------------


def named(*paths: str) -> list[tuple[str, str]]:
    return [(output.name, output.target) for output in name_outputs([Path(p) for p in paths])]


def test_names_are_plain_where_they_differ():
    assert named("p/a.jpg", "q/a.png", "q/r/b.jpg") == [
        ("a.jpg", "a.jpg"),
        ("a.png", "a.png"),
        ("b.jpg", "b.jpg"),
    ]
    assert named("p/clip.avi") == [("clip.avi", "clip.mp4")]


def test_repeated_names_become_paths_below_the_common_folder():
    assert named("/x/p/a.jpg", "/x/p/sub/a.jpg", "/x/p/b.jpg") == [
        ("a.jpg", "a.jpg"),
        ("sub/a.jpg", "sub/a.jpg"),
        ("b.jpg", "b.jpg"),
    ]
    # a case-insensitive file system
    assert [name for name, _ in named("p/A.jpg", "q/a.jpg")] == ["p/A.jpg", "q/a.jpg"]


def test_videos_of_one_stem_have_copies_of_their_own():
    assert named("clip.avi", "clip.mov", "one.avi") == [
        ("clip.avi", "clip.avi.mp4"),
        ("clip.mov", "clip.mov.mp4"),
        ("one.avi", "one.mp4"),
    ]
    assert named("clip.avi", "clip.mp4") == [("clip.avi", "clip.avi.mp4"), ("clip.mp4",) * 2]
    targets = [t for _, t in named("a.avi", "a.avi.avi", "a.avi.mp4", "a.mp4", "a.mov")]
    assert len(set(targets)) == 5


# ---- claim_folder --------------------------------------------------------------------------------


def test_folder_with_results_is_left_alone(tmp_path: Path):
    outputs = name_outputs([tmp_path / "in" / "a.jpg"])
    wanted = tmp_path / "deep" / "out"
    assert claim_folder(wanted, outputs, must_be_new=False) == wanted
    assert claim_folder(wanted, outputs, must_be_new=False) == wanted  # still empty
    touch(wanted / "other.txt")
    assert claim_folder(wanted, outputs, must_be_new=False) == wanted  # nothing to overwrite
    touch(wanted / "predictions.json")
    assert claim_folder(wanted, outputs, must_be_new=False) == wanted.with_name("out2")
    touch(wanted.with_name("out3"))
    (wanted / "predictions.json").rename(wanted / "a.jpg")
    assert claim_folder(wanted, outputs, must_be_new=False) == wanted.with_name("out4")


def test_default_folder_is_always_new(tmp_path: Path):
    outputs = name_outputs([tmp_path / "in" / "a.jpg"])
    claimed = [claim_folder(tmp_path / "runs" / "p", outputs, must_be_new=True) for _ in range(3)]
    assert names(claimed, tmp_path) == ["runs/p", "runs/p2", "runs/p3"]


def test_folders_that_cannot_take_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    outputs = name_outputs(touch(tmp_path / "in" / "a.jpg"))
    touch(tmp_path / "file", tmp_path / "predictions.json")
    with pytest.raises(UsageError, match="would overwrite the images .* choose another"):
        claim_folder(tmp_path / "in", outputs, must_be_new=False)
    with pytest.raises(ExistingFileError, match="file: is a file; choose another"):
        claim_folder(tmp_path / "file", outputs, must_be_new=False)
    with pytest.raises(WriteError, match="cannot be created"):
        claim_folder(tmp_path / "file" / "x", outputs, must_be_new=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExistingFileError, match="holds results; choose another"):
        claim_folder(Path("."), outputs, must_be_new=False)
    assert sorted(os.listdir(tmp_path)) == ["file", "in", "predictions.json"]


# ---- beside single files -------------------------------------------------------------------------


def test_folders_below_folders(tmp_path: Path):
    touch(*(tmp_path / "p" / name for name in ("a.jpg", "q/b.jpg", "q/r/c.png", "q/notes.md")))
    (tmp_path / "p" / "loop").symlink_to("..")
    found = survey(tmp_path / "p", recursive=True)
    assert names(found.paths, tmp_path) == ["p/a.jpg", "p/q/b.jpg", "p/q/r/c.png"]
    assert found.not_looked_at() == (
        "1 file of other suffixes (1 with .md): notes.md; "
        "1 subfolder, which --recursive includes: loop"
    )


def test_list_of_sources(tmp_path: Path):
    touch(*(tmp_path / name for name in ("x/a.jpg", "x/b.jpg", "c.png")))
    listed = tmp_path / "x" / "list.txt"
    listed.write_text("# mine\nb.jpg\n\n../c.png\nhttp://example.org/d.jpg\nnone.jpg\n")
    found = survey(listed)
    assert [path.name for path in found.paths] == ["b.jpg", "c.png"]
    assert found.remotes == [Remote("http://example.org/d.jpg")]
    assert len(found.problems) == 1 and "none.jpg: no image or video there" in found.problems[0]
    listed.write_text("other.txt\n")
    with pytest.raises(UsageError, match="lists another list, other.txt"):
        survey(listed)
    listed.write_text("\n# nothing\n")
    with pytest.raises(MissingFileError, match="list.txt: lists no source; wanted one per line"):
        survey(listed)
    listed.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match="list.txt: wanted UTF-8 text"):
        survey(listed)


def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    addresses = ("-", "0", "rtsp://me:secret@host/1", "https://host/p/street.jpg?x=1", "http://h/")
    found = survey(addresses)
    assert [remote.address for remote in found.remotes] == list(addresses) and not found.paths
    assert [remote.is_stream for remote in found.remotes] == [False, True, True, False, False]
    assert str(found.remotes[2]) == "rtsp://host/1"
    wanted = ["stdin.jpg", "camera0.jpg", "1.jpg", "street2.jpg", "h.jpg"]
    assert [o.name for o in name_outputs([Path("street.jpg")], found.remotes)][1:] == wanted
    touch(Path("0"))
    with pytest.raises(UsageError, match="0: wanted an image"):
        survey("0")  # a file has that name

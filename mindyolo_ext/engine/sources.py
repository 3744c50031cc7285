"""Which pictures and videos a source means, and where the results of each go."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mindyolo_ext.data.image_file import IMAGE_SUFFIXES
from mindyolo_ext.errors import (
    DataError,
    ExistingFileError,
    MissingFileError,
    UsageError,
    WriteError,
    shown,
)

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v")
SUFFIXES = IMAGE_SUFFIXES + VIDEO_SUFFIXES
PREDICTIONS = "predictions.json"
_WANTED = f"a picture ({', '.join(IMAGE_SUFFIXES)}) or a video ({', '.join(VIDEO_SUFFIXES)})"
_SIGNS = "*?["  # what makes a part of a path a pattern
_MOST_NAMED = 5  # names of one kind in a message


@dataclass(frozen=True)
class Sources:
    """What a source means.

    Args:
        paths: pictures and videos, sorted.
        other_files: files beside them that have another suffix.
        folders: folders beside them, and links to folders, that were not looked into.
        problems: of several sources, why some mean nothing.
    """

    paths: list[Path]
    other_files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def not_looked_at(self) -> str:
        """What else is there, a part of a sentence; empty if nothing is."""
        parts = []
        if self.other_files:
            suffixes = Counter(path.suffix.lower() or "no suffix" for path in self.other_files)
            kinds = ", ".join(
                f"{count} with {shown(suffix, 20)}" if suffix[0] == "." else f"{count} with none"
                for suffix, count in sorted(suffixes.items())
            )
            named = _named(self.other_files)
            parts.append(f"{len(self.other_files)} files of other suffixes ({kinds}): {named}")
        if self.folders:
            parts.append(
                f"{len(self.folders)} sub-folders, which only a pattern with ** looks into: "
                f"{_named(self.folders)}"
            )
        return "; ".join(parts)


@dataclass(frozen=True)
class Output:
    """Where the results of one picture or video go.

    Args:
        path: the picture or video.
        name: its key in ``predictions.json``: the file name where all are different, otherwise the
            path below the folder that all are in.
        target: of the annotated copy, below the folder of the results.
    """

    path: Path
    name: str
    target: str

    @property
    def is_video(self) -> bool:
        """Whether its suffix is that of a video."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


def find_sources(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """Pictures and videos that ``source`` means, sorted; of several sources one after the other,
    each file once.

    Args:
        source: a file, a folder (its own files only), or a pattern: ``*``, ``?`` and ``[...]`` in
            any part, ``**`` for any folders in between. What exists under that very name is never
            taken as a pattern.

    Raises: MissingFileError if there is none; UsageError for a file of another kind, a pattern that
        makes no sense or an address of the network. Of several sources, only if none means
        anything.
    """
    return survey(source).paths


def survey(source: str | Path | Sequence[str | Path]) -> Sources:
    """``find_sources``, with what was not looked at. Raises: as ``find_sources``."""
    if isinstance(source, (str, Path)):
        return _survey_one(source)
    found, errors = [], []
    for one in source:
        try:
            found.append(_survey_one(one))
        except (DataError, MissingFileError, UsageError) as error:
            errors.append(error)
    if not found:
        raise errors[0] if errors else UsageError("predict: wanted a source, got none")
    return Sources(
        list(dict.fromkeys(path for one in found for path in one.paths)),
        list(dict.fromkeys(path for one in found for path in one.other_files)),
        list(dict.fromkeys(path for one in found for path in one.folders)),
        [str(error) for error in errors],
    )


def _survey_one(source: str | Path) -> Sources:
    path, name = Path(source), shown(str(source), 300)
    if path.parts and not os.path.lexists(path.parts[0]):  # a folder may be called ~
        path = Path(os.path.expanduser(path))
    if os.path.isfile(path):
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"{name}: wanted {_WANTED}")
        return Sources([path])
    try:
        found = _sorted_out(path.iterdir() if os.path.isdir(path) else _matches(path))
    except OSError as error:
        raise DataError(f"predict {name}: cannot be listed ({error.strerror})") from error
    if found.paths:
        return found
    if "://" in str(source):
        raise UsageError(f"predict {name}: wanted a file, folder or pattern; download it first")
    if not os.path.exists(path) and not any(sign in str(path) for sign in _SIGNS):
        raise MissingFileError(f"predict {name}: no picture or video there, no such file or folder")
    others = found.not_looked_at()
    raise MissingFileError(
        f"predict {name}: no picture or video there" + (f", only {others}" if others else "")
    )


def name_outputs(paths: Sequence[Path]) -> list[Output]:
    """A name and a target of its own for each path."""
    names = [path.name for path in paths]
    if len({name.casefold() for name in names}) < len(names):
        top = os.path.commonpath([os.path.abspath(path.parent) for path in paths])
        names = [Path(os.path.relpath(path, top)).as_posix() for path in paths]
    videos = Counter(_as_mp4(name).casefold() for name in names if name != _as_mp4(name))
    taken = {name.casefold() for name in names if name == _as_mp4(name)}
    outputs = []
    for path, name in zip(paths, names, strict=True):
        target = _as_mp4(name)
        if target != name:
            if target.casefold() in taken or videos[target.casefold()] > 1:
                target = f"{name}.mp4"
            while target.casefold() in taken:
                target += ".mp4"
            taken.add(target.casefold())
        outputs.append(Output(path, name, target))
    return outputs


def claim_folder(wanted: Path, outputs: Sequence[Output], *, must_be_new: bool) -> Path:
    """Make the folder for the results: ``wanted``, or the first of ``wanted``2, ``wanted``3 ...
    that is new if ``wanted`` already holds results.

    Args:
        must_be_new: take no folder that is already there, even an empty one.

    Raises: UsageError if the results would overwrite or lie among their sources; ExistingFileError
        if ``wanted`` is a file, or holds results and has no name to number; WriteError.
    """
    name = shown(str(wanted), 300)
    if wanted.resolve() in {output.path.resolve().parent for output in outputs}:
        raise UsageError(
            f"predict: the results would overwrite the pictures in {name}; choose another "
            "--save_dir"
        )
    if os.path.lexists(wanted) and not os.path.isdir(wanted):
        raise ExistingFileError(f"--save_dir {name}: is a file; choose another --save_dir")
    try:
        if not must_be_new and not _holds_results(wanted, outputs):
            wanted.mkdir(parents=True, exist_ok=True)
            return wanted
        if wanted.name in ("", ".."):
            raise ExistingFileError(f"--save_dir {name}: holds results; choose another --save_dir")
        return _first_free(wanted)
    except ExistingFileError:
        raise
    except OSError as error:
        raise WriteError(f"--save_dir {name}: cannot be made ({error.strerror})") from error


def _first_free(wanted: Path) -> Path:
    """Make the first of ``wanted``, ``wanted``2, ``wanted``3 ... that is not there."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    folder, number = wanted, 1
    while True:
        try:
            folder.mkdir()  # fails where another process was faster
            return folder
        except FileExistsError:
            number += 1
            folder = wanted.with_name(f"{wanted.name}{number}")


def _holds_results(folder: Path, outputs: Iterable[Output]) -> bool:
    names = (PREDICTIONS, *(output.target for output in outputs))
    return any(os.path.lexists(folder / name) for name in names)


def _matches(path: Path) -> list[Path]:
    """What a pattern means. Its first parts that exist under that very name are no pattern.

    Raises: UsageError for a pattern that makes no sense.
    """
    base, rest = Path(), list(path.parts)
    while rest and os.path.lexists(base / rest[0]):
        base /= rest.pop(0)
    if not any(sign in part for part in rest for sign in _SIGNS):
        return []
    if rest[-1] == "**":
        rest.append("*")
    try:
        return list(base.glob("/".join(rest)))  # follows no link to a folder below **
    except (ValueError, NotImplementedError) as error:
        raise UsageError(f"predict {shown(str(path), 300)}: no such pattern ({error})") from error


def _sorted_out(candidates: Iterable[Path]) -> Sources:
    paths, other_files, folders = [], [], []
    for path in sorted(set(candidates)):
        if os.path.isdir(path):
            folders.append(path)
        else:
            (paths if path.suffix.lower() in SUFFIXES else other_files).append(path)
    return Sources(paths, other_files, folders)


def _as_mp4(name: str) -> str:
    """The name of a video's annotated copy; a picture's is its own."""
    stem, suffix = os.path.splitext(name)
    return f"{stem}.mp4" if suffix.lower() in VIDEO_SUFFIXES else name


def _named(paths: Sequence[Path]) -> str:
    names = ", ".join(shown(path.name, 100) for path in paths[:_MOST_NAMED])
    more = len(paths) - _MOST_NAMED
    return names + (f" and {more} more" if more > 0 else "")

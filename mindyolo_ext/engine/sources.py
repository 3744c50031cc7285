"""Find the images and videos of a source, and name the results of each."""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mindyolo_ext.data.image_file import IMAGE_SUFFIXES
from mindyolo_ext.data.text import read_lines
from mindyolo_ext.engine.remote import SCHEMES, Remote, is_remote
from mindyolo_ext.errors import (
    DataError,
    ExistingFileError,
    MissingFileError,
    UsageError,
    UserError,
    WriteError,
    shown,
)

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v")
SUFFIXES = IMAGE_SUFFIXES + VIDEO_SUFFIXES
PREDICTIONS, COCO_FILE = "predictions.json", "coco.json"
LABELS, CROPS = "labels", "crops"  # folders
_WANTED = f"an image ({', '.join(IMAGE_SUFFIXES)}) or a video ({', '.join(VIDEO_SUFFIXES)})"
LIST_SUFFIX = ".txt"  # a file that names a source per line
_SIGNS = "*?["  # characters that make a part of a path a pattern
_MOST_NAMED = 5  # names of one kind in a message


def counted(things: Collection[object], word: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{len(things)} {word}" if len(things) == 1 else f"{len(things)} {word}s"


@dataclass(frozen=True)
class Sources:
    """The images and videos of a source.

    Args:
        paths: images and videos, sorted.
        remotes: addresses, cameras and standard input.
        other_files: files beside them with other suffixes.
        folders: folders beside them, and links to folders, that were not searched.
        problems: for several sources, why some of them were not found.
    """

    paths: list[Path]
    remotes: list[Remote] = field(default_factory=list)
    other_files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def not_looked_at(self) -> str:
        """Describe what was ignored, as part of a sentence; empty if nothing was."""
        parts = []
        if self.other_files:
            suffixes = Counter(path.suffix.lower() or "no suffix" for path in self.other_files)
            kinds = ", ".join(
                f"{count} with {shown(suffix, 20)}" if suffix[0] == "." else f"{count} with none"
                for suffix, count in sorted(suffixes.items())
            )
            named = _named(self.other_files)
            parts.append(
                f"{counted(self.other_files, 'file')} of other suffixes ({kinds}): {named}"
            )
        if self.folders:
            parts.append(
                f"{counted(self.folders, 'subfolder')}, which --recursive includes: "
                f"{_named(self.folders)}"
            )
        return "; ".join(parts)


@dataclass(frozen=True)
class Output:
    """Where the results of one image or video are written.

    Args:
        path: the image or video, or a source that is not a local file.
        name: its key in ``predictions.json``: the file name if all names are different, otherwise
            the path below the common folder.
        target: of the annotated copy, below the folder of the results.
        stem: of label files and crops; no other output has it.
    """

    path: Path | Remote
    name: str
    target: str
    stem: str

    @property
    def is_video(self) -> bool:
        """Whether it is the file of a video, by its suffix."""
        return isinstance(self.path, Path) and self.path.suffix.lower() in VIDEO_SUFFIXES

    @property
    def video_target(self) -> str:
        """Name of the annotated copy if it is a video."""
        return self.target if self.is_video else f"{os.path.splitext(self.name)[0]}.mp4"

    @property
    def lines_target(self) -> str:
        """Name of the file with the rows of a stream."""
        return f"{os.path.splitext(self.name)[0]}.jsonl"


def find_sources(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """The local files found by ``survey``. Raises: as ``survey``."""
    return survey(source).paths


def survey(source: str | Path | Sequence[str | Path], *, recursive: bool = False) -> Sources:
    """Find the images and videos of ``source``, sorted; several sources are searched in order, and
    each file is listed once.

    Args:
        source: a file; a folder; a pattern with ``*``, ``?`` and ``[...]`` in any part and ``**``
            for any folders in between; a ``.txt`` file with a source per line, relative to its
            folder; an address (``http://``, ``rtsp://`` ...); the index of a camera; or ``-`` for
            an image on standard input. The name of an existing file is never interpreted otherwise.
        recursive: include subfolders; links to folders are not followed.

    Raises: MissingFileError if there is none; UsageError for a file of another kind, an invalid
        pattern or an unsupported address. With several sources only if none of them is found.
    """
    if isinstance(source, (str, Path)):
        return _survey_one(source, recursive)
    return _survey_all(source, recursive)


def _survey_all(sources: Iterable[str | Path], recursive: bool) -> Sources:
    found, errors = [], []
    for one in sources:
        try:
            found.append(_survey_one(one, recursive))
        except (DataError, MissingFileError, UsageError) as error:
            errors.append(error)
    if not found:
        raise errors[0] if errors else UsageError("predict: wanted a source, got none")
    return Sources(
        list(dict.fromkeys(path for one in found for path in one.paths)),
        list(dict.fromkeys(remote for one in found for remote in one.remotes)),
        list(dict.fromkeys(path for one in found for path in one.other_files)),
        list(dict.fromkeys(path for one in found for path in one.folders)),
        [problem for one in found for problem in one.problems] + [str(error) for error in errors],
    )


def _survey_one(source: str | Path, recursive: bool) -> Sources:
    if isinstance(source, str) and not os.path.lexists(source) and is_remote(source):
        return Sources([], [Remote(source)])
    path, name = Path(source), shown(str(source), 300)
    if path.parts and not os.path.lexists(path.parts[0]):  # a folder may be named ~
        path = Path(os.path.expanduser(path))
    if os.path.isfile(path):
        if path.suffix.lower() == LIST_SUFFIX:
            return _survey_list(path, recursive)
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"{name}: wanted {_WANTED}")
        return Sources([path])
    try:
        found = _sorted_out(_candidates(path, recursive), recursive)
    except OSError as error:
        raise DataError(f"predict {name}: cannot be listed ({error.strerror})") from error
    if not found.paths:
        raise _nothing_there(str(source), path, found)
    return found


def _candidates(path: Path, recursive: bool) -> Iterable[Path]:
    """The entries of a folder, or the matches of a pattern."""
    if not os.path.isdir(path):
        return _matches(path)
    return path.rglob("*") if recursive else path.iterdir()


def _nothing_there(source: str, path: Path, found: Sources) -> UserError:
    """Create the error for a source without an image or video."""
    name = shown(source, 300)
    if "://" in source:
        return UsageError(
            f"predict {name}: wanted a file, folder or pattern, or an address that begins with one "
            f"of {', '.join(f'{scheme}://' for scheme in SCHEMES)}"
        )
    if not os.path.exists(path) and not any(sign in str(path) for sign in _SIGNS):
        return MissingFileError(f"predict {name}: no image or video there, no such file or folder")
    others = found.not_looked_at()
    return MissingFileError(
        f"predict {name}: no image or video there" + (f", only {others}" if others else "")
    )


def _survey_list(path: Path, recursive: bool) -> Sources:
    """The sources listed in a text file. Raises: DataError; as ``survey``."""
    name = shown(str(path), 300)
    named = [line for _, line in read_lines(path) if not line.startswith("#")]
    if not named:
        raise MissingFileError(f"{name}: lists no source; wanted one per line")
    nested = [line for line in named if line.lower().endswith(LIST_SUFFIX)]
    if nested:
        raise UsageError(f"{name}: lists another list, {shown(nested[0], 100)}; copy its lines")
    return _survey_all(
        [line if is_remote(line) else path.parent / os.path.expanduser(line) for line in named],
        recursive,
    )


def name_outputs(paths: Sequence[Path], remotes: Sequence[Remote] = ()) -> list[Output]:
    """Choose a unique name, target and stem for each path and remote."""
    names = [path.name for path in paths]
    if len({name.casefold() for name in names}) < len(names):
        top = os.path.commonpath([os.path.abspath(path.parent) for path in paths])
        names = [Path(os.path.relpath(path, top)).as_posix() for path in paths]
    targets = _copies(names)
    taken = {name.casefold() for name in (*names, *targets)}
    for remote in remotes:
        names.append(_name_remote(remote, taken))
        targets.append(names[-1])
    sources: list[Path | Remote] = [*paths, *remotes]
    return [Output(*parts) for parts in zip(sources, names, targets, _stems(names), strict=True)]


def _copies(names: Sequence[str]) -> list[str]:
    """Names of the annotated copies; a video's ends in .mp4 and differs from all other names."""
    videos = Counter(_as_mp4(name).casefold() for name in names if name != _as_mp4(name))
    taken = {name.casefold() for name in names if name == _as_mp4(name)}
    targets = []
    for name in names:
        target = _as_mp4(name)
        if target != name:
            if target.casefold() in taken or videos[target.casefold()] > 1:
                target = f"{name}.mp4"
            while target.casefold() in taken:
                target += ".mp4"
            taken.add(target.casefold())
        targets.append(target)
    return targets


def _name_remote(remote: Remote, taken: set[str]) -> str:
    """Choose a name for an image from ``remote`` whose stem is free even for a video, and add it to
    ``taken``.
    """
    stem, suffix = os.path.splitext(remote.name)
    suffix = suffix if suffix.lower() in IMAGE_SUFFIXES else ".jpg"
    number, numbered = 1, stem
    while {f"{numbered}{suffix}".casefold(), f"{numbered}.mp4".casefold()} & taken:
        number += 1
        numbered = f"{stem}{number}"
    taken |= {f"{numbered}{suffix}".casefold(), f"{numbered}.mp4".casefold()}
    return f"{numbered}{suffix}"


def _stems(names: Sequence[str]) -> list[str]:
    """The names without suffixes, or with them if two would be equal."""
    stems = [os.path.splitext(name)[0] for name in names]
    while True:
        counts = Counter(stem.casefold() for stem in stems)
        longer = [
            name if counts[stem.casefold()] > 1 else stem
            for name, stem in zip(names, stems, strict=True)
        ]
        if longer == stems:
            return stems
        stems = longer


def claim_folder(wanted: Path, outputs: Sequence[Output], *, must_be_new: bool) -> Path:
    """Create the folder for the results: ``wanted``, or the first new one of ``wanted``2,
    ``wanted``3 ... if ``wanted`` already holds results.

    Args:
        must_be_new: do not use an existing folder, even an empty one.

    Raises: UsageError if the results would overwrite their sources or be written among them;
        ExistingFileError if ``wanted`` is a file, or holds results and its name cannot be numbered;
        WriteError.
    """
    name = shown(str(wanted), 300)
    if wanted.resolve() in {
        output.path.resolve().parent for output in outputs if isinstance(output.path, Path)
    }:
        raise UsageError(
            f"predict: the results would overwrite the images in {name}; choose another --save_dir"
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
        raise WriteError(f"--save_dir {name}: cannot be created ({error.strerror})") from error


def _first_free(wanted: Path) -> Path:
    """Create the first of ``wanted``, ``wanted``2, ``wanted``3 ... that does not exist."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    folder, number = wanted, 1
    while True:
        try:
            folder.mkdir()  # fails if another process was faster
            return folder
        except FileExistsError:
            number += 1
            folder = wanted.with_name(f"{wanted.name}{number}")


def _holds_results(folder: Path, outputs: Iterable[Output]) -> bool:
    streams = [output for output in outputs if isinstance(output.path, Remote)]
    names = (
        *(PREDICTIONS, COCO_FILE, LABELS, CROPS),
        *(output.target for output in outputs),
        *(output.video_target for output in streams),
        *(output.lines_target for output in streams),
    )
    return any(os.path.lexists(folder / name) for name in names)


def _matches(path: Path) -> list[Path]:
    """The matches of a pattern. Leading parts that exist under that exact name are taken literally.

    Raises: UsageError for an invalid pattern.
    """
    base, rest = Path(), list(path.parts)
    while rest and os.path.lexists(base / rest[0]):
        base /= rest.pop(0)
    if not any(sign in part for part in rest for sign in _SIGNS):
        return []
    if rest[-1] == "**":
        rest.append("*")
    try:
        return list(base.glob("/".join(rest)))  # does not follow links to folders for **
    except (ValueError, NotImplementedError) as error:
        raise UsageError(f"predict {shown(str(path), 300)}: no such pattern ({error})") from error


def _sorted_out(candidates: Iterable[Path], recursive: bool) -> Sources:
    paths: list[Path] = []
    other_files: list[Path] = []
    folders: list[Path] = []
    for path in sorted(set(candidates)):
        if os.path.isdir(path):
            if recursive and not path.is_symlink():
                continue  # its files are among the candidates
            folders.append(path)
        else:
            (paths if path.suffix.lower() in SUFFIXES else other_files).append(path)
    return Sources(paths, [], other_files, folders)


def _as_mp4(name: str) -> str:
    """Name of a video's annotated copy; an image keeps its name."""
    stem, suffix = os.path.splitext(name)
    return f"{stem}.mp4" if suffix.lower() in VIDEO_SUFFIXES else name


def _named(paths: Sequence[Path]) -> str:
    names = ", ".join(shown(path.name, 100) for path in paths[:_MOST_NAMED])
    more = len(paths) - _MOST_NAMED
    return names + (f" and {more} more" if more > 0 else "")

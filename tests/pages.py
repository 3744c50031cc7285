"""What the tests of the documentation read: pages, links, code blocks and the commands in them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from launching import ROOT

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^ *```$", re.M | re.S)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^(#+) (.+)$", re.M)
_ORIGINALS = re.compile(r"^(\| [^|]* \|) `python3? [^|]* \|(?= .*\|$)", re.M)  # a middle column
_PROGRAMS = {"train.py": "train", "test.py": "test"}
_PLACEHOLDERS = re.compile(r"\.\.\.|[<>|\[\]…]")


@dataclass(frozen=True)
class Link:
    """``![text](target)`` or, without the exclamation mark, ``[text](target)``."""

    is_image: bool
    text: str
    target: str


def pages() -> list[Path]:
    """Every page for readers: of the top level, docs, deploy and the reference arrays."""
    top = sorted(ROOT.glob("*.md"))
    docs = sorted((ROOT / "docs").rglob("*.md"))
    return [*top, *docs, ROOT / "deploy" / "README.md", ROOT / "tests" / "golden" / "README.md"]


def page_id(page: Path) -> str:
    """A page's name in the list of tests."""
    return page.relative_to(ROOT).as_posix()


def prose(text: str) -> str:
    """A page without its code blocks."""
    return _FENCE.sub("", text)


def links(text: str) -> list[Link]:
    """All links and images outside code."""
    plain = _INLINE.sub("`code`", prose(text))
    return [Link(bool(m["image"]), m["text"], m["target"]) for m in _LINK.finditer(plain)]


def headings(text: str) -> list[tuple[int, str]]:
    """Level and text of each heading."""
    return [(len(hashes), title) for hashes, title in _HEADING.findall(prose(text))]


def anchors(text: str) -> set[str]:
    """The targets that ``#...`` in a link may name, by GitHub's rules."""
    titles = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for _, title in headings(text))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Language and text of each code block."""
    for match in _FENCE.finditer(text):
        indent = len(match["indent"])
        yield match["language"], "\n".join(x[indent:] for x in match["text"].splitlines())


def block_commands(text: str) -> list[str]:
    """Shell lines of all blocks in no other language, with continued lines joined."""
    found = []
    for language, block in blocks(text):
        if language in ("", "bash"):
            found += re.sub(r"\\\n\s*", " ", block).splitlines()
    return found


def inline_commands(text: str) -> list[str]:
    """Code in sentences and tables without placeholders, except quotes of the original programs in
    tables.
    """
    plain = _INLINE.findall(_ORIGINALS.sub(r"\1", prose(text)))
    return [code for code in plain if not _PLACEHOLDERS.search(code)]


def own_arguments(line: str) -> list[str] | None:
    """Arguments of ``mindyolo-ext`` in a shell line, whatever launches it; None for others."""
    try:
        words = shlex.split(line.removeprefix("$ "), comments=True)
    except ValueError:
        return None
    for place, word in enumerate(words):
        is_started = place == 0 or _is_launcher(words[:place])
        in_container = word.startswith("mindyolo_ext:") and words[:2] == ["docker", "run"]
        if in_container or (word == "mindyolo-ext" and is_started):
            return _until_next(words[place + 1 :])
        if word in _PROGRAMS and is_started and place > 0:
            return [_PROGRAMS[word], *_until_next(words[place + 1 :])]
    return None


def _is_launcher(words: list[str]) -> bool:
    """Whether the words before a program set variables or launch it."""
    rest = [word for word in words if not re.fullmatch(r"[A-Z_]+=.*", word)]
    return not rest or rest[0].rpartition("/")[2] in ("python", "mpirun", "msrun", "torchrun")


def _until_next(words: list[str]) -> list[str]:
    """The words before a pipe, a redirection or a second command."""
    ends = [i for i, word in enumerate(words) if word in ("|", "&&", ";", "<", ">", "2>&1")]
    return words[: ends[0]] if ends else words

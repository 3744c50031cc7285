"""Hooks of mkdocs: pages link to files of the repository that lie outside docs; the site has them
too, below ``repository/``.
"""

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = "repository"
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "deploy/README.md", "tests/golden/README.md")
_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that stand outside docs, and every file that a page links to out there."""
    names = {*PAGES}
    for page in sorted((ROOT / "docs").rglob("*.md")):
        names |= _outside(page.relative_to(ROOT / "docs").as_posix(), page.read_text("utf-8"))
    for name in PAGES:
        text = (ROOT / name).read_text("utf-8")
        names |= _outside(f"{OUTSIDE}/{name}", text)
    for name in sorted(names):
        source = ROOT / name
        if source.is_file():
            uri = f"{OUTSIDE}/{name}"
            files.append(File.generated(config, uri, abs_src_path=str(source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links out of docs into links to the copies."""
    uri = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        target = _target(uri, match[2])
        if target is None:
            return match[0]
        return f"{match[1]}{posixpath.relpath(target, posixpath.dirname(uri) or '.')}{match[3]}"

    return _LINK.sub(moved, markdown)


def _target(uri: str, link: str) -> str | None:
    """Where a link of a page leads on the site, if it crosses the border of docs; else None."""
    if "://" in link or not link:
        return None
    here = uri.removeprefix(f"{OUTSIDE}/") if uri.startswith(f"{OUTSIDE}/") else f"docs/{uri}"
    place = posixpath.normpath(posixpath.join(posixpath.dirname(here), link))
    if not os.path.exists(ROOT / place):
        return None
    if place.startswith("docs/"):
        inside = place.removeprefix("docs/")
        inside = f"{OUTSIDE}/{place}" if inside.startswith("programs/") else inside
    else:
        inside = f"{OUTSIDE}/{place}"
    return inside


def _outside(uri: str, text: str) -> set[str]:
    """Files of the repository outside docs that a page links to."""
    targets = (_target(uri, link) for _, link, _ in _LINK.findall(text))
    return {t.removeprefix(f"{OUTSIDE}/") for t in targets if t and t.startswith(OUTSIDE)}

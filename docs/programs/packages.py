"""Write the table of packages into docs/licenses.md: ``python docs/programs/packages.py``.

Names and versions are those of pyproject.toml, licenses those that the installed packages state. A
package that is not installed here keeps the license that the page has for it.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "licenses.md"
_BLOCK = re.compile(r"(<!-- packages -->\n).*?(<!-- /packages -->)", re.S)
_ROW = re.compile(r"^\| (\S+) \| [^|]* \| ([^|]*) \| [^|]* \|$", re.M)
_WITH_PROJECT = ""  # the name of the extra that is always installed


def requirements() -> Iterator[tuple[str, Requirement]]:
    """Every requirement of pyproject.toml with the extra that asks for it, "" for none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {_WITH_PROJECT: project["dependencies"], **project["optional-dependencies"]}
    for extra, lines in groups.items():
        for requirement in map(Requirement, lines):
            if requirement.name != project["name"]:  # an extra made of others
                yield extra, requirement


def license_of(name: str) -> str | None:
    """The license that an installed package states, in one line; None if it is not installed."""
    try:
        package = distribution(name)
    except PackageNotFoundError:
        return None
    about = package.metadata
    if about["License-Expression"]:
        return about["License-Expression"]
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in about.get_all("Classifier", [])
        if line.startswith("License :: ") and not line.endswith("OSI Approved")
    ]
    stated = ", ".join(classifiers) or (about["License"] or "").partition("\n")[0]
    return stated or head_of_license_file(package) or "not stated"


def head_of_license_file(package: Distribution) -> str:
    """The first line with text of the license file in a package, "" if it has none."""
    for name in package.metadata.get_all("License-File", []):
        text = package.read_text(f"licenses/{name}") or package.read_text(name) or ""
        if text.strip():
            return text.strip().splitlines()[0].strip()
    return ""


def table(known: Mapping[str, str]) -> str:
    """A row per package; ``known`` has licenses of packages that may not be installed here."""
    versions: dict[str, set[str]] = {}
    extras: dict[str, set[str]] = {}
    for extra, requirement in requirements():
        versions.setdefault(requirement.name, set()).add(str(requirement.specifier))
        extras.setdefault(requirement.name, set()).add(extra)
    rows = ["| package | versions | license | installed with |\n| --- | --- | --- | --- |\n"]
    for name in sorted(versions, key=str.lower):
        wanted = " or ".join(sorted(versions[name] - {""})) or "any"
        license_ = license_of(name) or known.get(name, "not known here")
        by = "every installation" if _WITH_PROJECT in extras[name] else ""
        by = by or ", ".join(f"`[{extra}]`" for extra in sorted(extras[name]))
        rows.append(f"| {name} | {wanted} | {license_} | {by} |\n")
    return "".join(rows)


def updated(text: str) -> str:
    """The page with its table as pyproject.toml and this environment say."""
    known = dict(_ROW.findall(text))
    return _BLOCK.sub(lambda block: f"{block[1]}{table(known)}{block[2]}", text)


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

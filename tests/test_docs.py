"""The documentation is correct: tables, links, commands and outputs, and both languages match."""

import ast
import importlib
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from helpers import Command, shared_folder
from launching import ROOT
from pages import (
    anchors,
    block_commands,
    blocks,
    headings,
    inline_commands,
    links,
    own_arguments,
    page_id,
    pages,
)

from mindyolo_ext.cli import reference
from mindyolo_ext.cli.parser import parser_for
from mindyolo_ext.models import tables
from mindyolo_ext.models.registry import families

PAGES = pages()
TRANSLATED = {
    "README_CN.md": "README.md",
    **{f"docs/zh/{page.name}": f"docs/{page.name}" for page in (ROOT / "docs/zh").glob("*.md")},
}
OUTPUT_COMMANDS = ("convert", "info")
README_LINES = 120
_UNFINISHED = re.compile("are required|expected (one|at least one) argument")

every_page = pytest.mark.parametrize("page", PAGES, ids=page_id)


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


# ---- tables --------------------------------------------------------------------------------------


@every_page
def test_tables_are_up_to_date(page: Path):
    assert tables.updated(read(page)) == read(page), "run `make tables`"


def test_every_family_has_its_table():
    for name in families():
        assert f"<!-- table: variants {name} -->" in read(ROOT / "docs" / f"{name}.md")


def test_an_old_table_is_replaced():
    page = "before\n<!-- table: variants yolox -->\nold\n<!-- /table -->\nafter\n"
    new = tables.updated(page)
    assert "old" not in new and "`yolox_nano`" in new
    assert new.startswith("before\n") and new.endswith("<!-- /table -->\nafter\n")
    with pytest.raises(ValueError, match="families, families zh, terms or variants FAMILY"):
        tables.updated("<!-- table: x -->\n<!-- /table -->")


# ---- links and pictures --------------------------------------------------------------------------


def broken_links(page: Path, text: str) -> list[str]:
    """Relative links of a page that lead nowhere."""
    broken = []
    for link in links(text):
        path, _, anchor = link.target.partition("#")
        target = (page.parent / path).resolve() if path else page
        if link.target.startswith(("http://", "https://")):
            continue
        is_there = target.exists()
        if not is_there or (anchor and anchor not in anchors(read(target))):
            broken.append(link.target)
    return broken


@every_page
def test_links_lead_somewhere(page: Path):
    assert broken_links(page, read(page)) == []


def test_broken_links_are_noticed(tmp_path: Path):
    (tmp_path / "b.md").write_text("# Two words, `code`\n", encoding="utf-8")
    text = "[fine](b.md#two-words-code) [no page](c.md) [no heading](b.md#three) `[code](x.md)`"
    assert broken_links(tmp_path / "a.md", text) == ["c.md", "b.md#three"]


@every_page
def test_pictures_say_what_they_show(page: Path):
    short = [link.target for link in links(read(page)) if link.is_image and len(link.text) < 15]
    assert short == [], "an image needs an alternative text"


@every_page
def test_python_in_pages_can_be_parsed(page: Path):
    for language, text in blocks(read(page)):
        if language == "python":
            ast.parse(text)


def test_the_readme_stays_short():
    assert len(read(ROOT / "README.md").splitlines()) <= README_LINES


# ---- commands ------------------------------------------------------------------------------------


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The parser's error for these arguments, "" if there is none; a recipe has to exist."""
    try:
        parser_for(arguments).parse_args(arguments)
    except SystemExit as ending:
        error = capsys.readouterr().err.strip().splitlines()
        return error[-1] if ending.code else ""
    recipes = [word for word in arguments if re.fullmatch(r"(./)?configs/\S+\.yaml", word)]
    return ", ".join(f"{name} is missing" for name in recipes if not (ROOT / name).is_file())


def misunderstood(text: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Commands of a page that the parser refuses. A sentence may show an incomplete one."""
    wrong = []
    for whole, lines in ((True, block_commands(text)), (False, inline_commands(text))):
        for line in lines:
            arguments = own_arguments(line)
            if not arguments or "..." in arguments or arguments == ["VERB"]:
                continue
            problem = refused(arguments, capsys)
            if problem and (whole or not _UNFINISHED.search(problem)):
                wrong.append(f"{line}: {problem}")
    return wrong


@every_page
def test_commands_are_understood(page: Path, capsys: pytest.CaptureFixture[str]):
    if page.name == "adding_a_family.md":
        pytest.skip("its commands run in a test of their own")
    assert misunderstood(read(page), capsys) == []


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("$ mindyolo-ext info a.ckpt   # what is it?", ["info", "a.ckpt"]),
        ("python train.py --config a.yaml | tee log", ["train", "--config", "a.yaml"]),
        ("A=1 mpirun -n 2 python test.py --weight b", ["test", "--weight", "b"]),
        ("mpirun -n 2 mindyolo-ext doctor", ["doctor"]),
        ("docker run --rm -v .:/data mindyolo_ext:cpu demo", ["demo"]),
        ("docker build -t mindyolo_ext:cpu .", None),
        ("pip install mindyolo-ext", None),
        ("train.py test.py", None),
        ("it's mindyolo-ext", None),
    ],
)
def test_commands_are_found(line: str, wanted: list[str] | None):
    assert own_arguments(line) == wanted


def test_commands_that_fail_are_noticed(capsys: pytest.CaptureFixture[str]):
    assert "--colour" in refused(["info", "--colour", "red", "a.ckpt"], capsys)
    assert refused(["train", "--config", "configs/none.yaml"], capsys).endswith("is missing")
    assert refused(["train", "--help"], capsys) == ""
    page = "Take `mindyolo-ext export`, not `mindyolo-ext exprot`.\n```bash\nmindyolo-ext info\n```"
    assert [line.partition(":")[0] for line in misunderstood(page, capsys)] == [
        "mindyolo-ext info",
        "mindyolo-ext exprot",
    ]


def test_the_reference_of_commands_is_up_to_date():
    assert read(ROOT / "docs" / "cli.md") == reference.markdown(), "run `make tables`"


@pytest.fixture
def summary(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/summary.py."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("summary")


def test_the_summary_of_speed_is_up_to_date(summary: ModuleType):
    page = read(ROOT / "docs" / "results.md")
    assert page == summary.with_summary(page, read(ROOT / "docs" / "benchmarks.md"))


def test_a_summary_puts_the_backends_of_a_case_in_a_line(summary: ModuleType):
    page = """<!-- yolox_forward -->
| nano, 416, MindSpore graph / PyTorch eager (largest difference 1e-05) | 1 | 2 | **0.5** |
| nano, 416, exported ONNX in ONNX Runtime / MindSpore graph | 1 | 1 | **1** |
<!-- end of yolox_forward -->
<!-- yolox_forward_on_torch -->
| nano, 416, our PyTorch backend / PyTorch eager (first loss 9 / 9) | 1 | 4 | **0.25** |
<!-- end of yolox_forward_on_torch -->
<!-- train_step -->
| batch 16 (first loss 9.1 / 9.1) | 1 | 1 | **1.1** |
<!-- end of train_step -->"""
    assert summary.ratios(page) == {
        "YOLOX, forward: nano, 416": {"MindSpore": "0.5", "PyTorch backend": "0.25"},
        "Yolo-FastestV2, training step: batch 16": {"MindSpore": "1.1"},
    }


# ---- outputs -------------------------------------------------------------------------------------


def sample(name: str) -> Path | None:
    """The checkpoint of that name among the reference arrays and the shared weights."""
    shared = shared_folder()
    places = [ROOT / "tests" / "golden", *([shared / "weights"] if shared else [])]
    return next((path for place in places for path in sorted(place.rglob(name))), None)


def shown_outputs() -> list[tuple[str, str, str]]:
    """Page, command and output of every conversion and every inspection of a file."""
    found = []
    for page in PAGES:
        for _, block in blocks(read(page)):
            for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
                command, _, output = part.partition("\n")
                words = own_arguments(command)
                if words and words[0] in OUTPUT_COMMANDS and output.strip():
                    found.append((page_id(page), command, output))
    return found


@pytest.mark.parametrize(("page", "line", "output"), shown_outputs())
def test_outputs_are_what_the_command_prints(
    page: str,  # noqa: ARG001  # names the test
    line: str,
    output: str,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    arguments = own_arguments(line) or []
    source = sample(arguments[1])
    if source is None:
        pytest.skip(f"no file {arguments[1]} here")
    monkeypatch.chdir(tmp_path)
    shutil.copy(source, tmp_path)
    _, printed = command(*arguments)
    rest = printed
    for wanted in filter(str.strip, output.splitlines()):
        if wanted.strip() != "...":
            assert wanted in rest, f"{wanted!r} is not in:\n{printed}"
            rest = rest[rest.index(wanted) + len(wanted) :]


# ---- languages -----------------------------------------------------------------------------------


def without_comments(text: str) -> list[str]:
    """Commands of the shell blocks of a page, without comments."""
    return [re.sub(r"\s+#.*", "", line).strip() for line in block_commands(text) if line.strip()]


@pytest.mark.parametrize("translation", TRANSLATED)
def test_translations_have_the_same_headings_and_commands(translation: str):
    original, translated = read(ROOT / TRANSLATED[translation]), read(ROOT / translation)
    assert [level for level, _ in headings(translated)] == [x for x, _ in headings(original)]
    assert without_comments(translated) == without_comments(original)


@pytest.mark.parametrize("translation", TRANSLATED)
def test_translations_are_translated(translation: str):
    text = read(ROOT / translation)
    plain = [title for _, title in headings(text)[1:] if title.isascii() and "`" not in title]
    assert plain == []

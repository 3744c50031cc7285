"""The rules of docs/design.md, checked for every file; each checker is tested with a snippet that
breaks its rule.
"""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from launching import ROOT, environment
from source_rules import (
    FRAMEWORKS,
    MAY_IMPORT,
    banned_constructs,
    documented_platforms,
    import_circles,
    import_violations,
    imports,
    part_of,
    public_api_problems,
    tensor_methods,
    used_names,
)

import mindyolo_ext
from mindyolo_ext.models.registry import families

PACKAGE = ROOT / "mindyolo_ext"
# scripts for the user's own PyTorch; no module of ours imports them
ORIGINALS = re.compile(r"models/\w+/original\.py|checkpoint/(run_original|stand_ins)\.py")
GRAPH_FILES = (
    "layers",
    "losses",
    *(f"models/{name}/{module}.py" for name in families() for module in ("network", "loss")),
)
AUDITED = ("backend", *GRAPH_FILES, "engine/predictor.py", "engine/routing.py")
PLATFORMS = {"Ascend", "GPU", "CPU"}
MAX_BYTES = 5 * 2**20
FORBIDDEN = re.compile(r"/wor" r"k\b|\.\./share" r"d\b")  # in two pieces, for this file itself

# Names whose own docstring does not list the three devices, and what was looked at instead.
NOT_OPERATORS = {
    name: "a class, type or module, not an operator"
    for name in (
        "mindspore.bfloat16",
        "mindspore.Parameter",
        "mindspore.ParameterTuple",
        "mindspore.Tensor",
        "mindspore.bool_",
        "mindspore.float16",
        "mindspore.float32",
        "mindspore.int32",
        "mindspore.int64",
        "mindspore.nn",
        "mindspore.ops",
        "mindspore.runtime",
        "mindspore.uint8",
    )
}
EXCEPTIONS = NOT_OPERATORS | {
    "ops.constexpr": "runs a Python function while the graph is compiled, no operator",
    "ops.ReduceOp": "an enumeration; its docstring says `not an operator`, ops.AllReduce documents "
    "the three devices",
}
# the first only calls the second, which is checked instead
ALIASES = {"ops.concat": "ops.cat"}
COLLECTIVES = re.compile(
    r"ops\.(All|Reduce|Broadcast|Send|Receive|Neighbor|Barrier|Collective|BatchIsend)"
)
ALLOWED_COLLECTIVES = {"ops.AllReduce", "ops.ReduceOp"}


def sources(*places: str) -> dict[str, str]:
    """Source text by path below the package, of files and folders; of the whole package without
    arguments.
    """
    roots = [PACKAGE / place for place in places] or [PACKAGE]
    paths = [
        p for root in roots for p in ([root] if root.is_file() else sorted(root.rglob("*.py")))
    ]
    found = {p.relative_to(PACKAGE).as_posix(): p.read_text(encoding="utf-8") for p in paths}
    assert found, places
    return found


def without_originals() -> dict[str, str]:
    return {path: text for path, text in sources().items() if not ORIGINALS.fullmatch(path)}


# ---- operators -----------------------------------------------------------------------------------


def resolve(name: str) -> object:
    """The object behind a dotted name; ``nn`` and ``ops`` are MindSpore's."""
    module, _, attribute = name.rpartition(".")
    module = {"nn": "mindspore.nn", "ops": "mindspore.ops"}.get(module, module)
    return getattr(importlib.import_module(module), attribute)


def operator_problems(names: set[str]) -> list[str]:
    """Names in use that the installed MindSpore does not document for Ascend, GPU and CPU."""
    wrong = []
    for name in sorted(names):
        if COLLECTIVES.match(name) and name not in ALLOWED_COLLECTIVES:
            wrong.append(f"{name}: AllReduce is the only collective in use")
        elif name not in EXCEPTIONS:
            platforms = documented_platforms(inspect.getdoc(resolve(ALIASES.get(name, name))))
            if not platforms >= PLATFORMS:
                wrong.append(f"{name}: documented for {sorted(platforms) or 'nothing'}")
    return wrong


def names_in_use() -> set[str]:
    return set().union(*(used_names(text) for text in sources(*AUDITED).values()))


@pytest.mark.needs_mindspore
def test_every_operator_documents_ascend_gpu_and_cpu():
    names = names_in_use()
    assert {"nn.Conv2d", "ops.sigmoid", "ops.AllReduce", "mindspore.value_and_grad"} <= names
    assert operator_problems(names) == []


@pytest.mark.needs_mindspore
def test_exceptions_of_the_audit_are_still_in_use_and_needed():
    names = names_in_use()
    assert set(EXCEPTIONS) | set(ALIASES) <= names
    for name in EXCEPTIONS:
        assert not documented_platforms(inspect.getdoc(resolve(name))) >= PLATFORMS, (
            f"{name} needs no exception"
        )
    for alias, target in ALIASES.items():
        assert f"return {target.split('.')[1]}(" in inspect.getsource(resolve(alias))
    assert "not an operator" in inspect.getdoc(resolve("ops.ReduceOp"))


@pytest.mark.needs_mindspore
def test_the_audit_notices_an_operator_for_one_device_and_a_collective():
    assert operator_problems({"ops.sigmoid"}) == []
    assert operator_problems({"ops.AllGather"}) == [
        "ops.AllGather: AllReduce is the only collective in use"
    ]
    assert operator_problems({"ops.NPUGetFloatStatus"}) == [
        "ops.NPUGetFloatStatus: documented for ['Ascend']"
    ]
    assert used_names("from mindyolo_ext.backend import ops\ny = ops.sum(x) + nn.ReLU()(x)") == {
        "ops.sum",
        "nn.ReLU",
    }
    assert used_names("from mindspore import mint") == {"mindspore.mint"}
    assert documented_platforms("Text.\n\nSupported Platforms:\n    ``Ascend`` ``CPU``\n") == {
        "Ascend",
        "CPU",
    }


# ---- who may import whom -------------------------------------------------------------------------


def test_parts_import_only_what_they_may():
    parts = {part_of(Path(path).with_suffix("").parts) for path in without_originals()}
    assert parts <= set(MAY_IMPORT), "a new part of the package needs a row in MAY_IMPORT"
    parents = {name: record.parents for name, record in families().items()}
    assert [
        v
        for path, text in without_originals().items()
        for v in import_violations(text, path, parents)
    ] == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("models/x/network.py", "from mindyolo_ext.losses.iou import ciou"),
        ("models/x/network.py", "from mindyolo_ext.models.yolox.network import CSPLayer"),
        ("models/x/network.py", "from mindspore import ops"),
        ("models/x/network.py", "def f():\n    import mindspore"),
        ("models/x/network.py", "from mindyolo_ext.data.dataset import Dataset"),
        ("models/x/network.py", "from mindyolo_ext.models.x.loss import XLoss"),
        ("models/x/__init__.py", "from mindyolo_ext.models.x.network import X"),
        ("models/x/__init__.py", "from mindyolo_ext.backend import nn"),
        ("models/x/variants.py", "from mindyolo_ext.backend import nn"),
        ("models/x/names.py", "from mindyolo_ext.models.x.network import X"),
        ("models/x/names.py", "def f():\n    from mindyolo_ext.backend import Tensor"),
        ("models/x/augment.py", "from mindyolo_ext.models.yolox.augment import mirror"),
        ("models/x/augment.py", "from mindyolo_ext.models.registry import families"),
        ("models/x/loss.py", "from mindyolo_ext.models.yolox.loss import YOLOXLoss"),
        ("models/registry.py", "from mindyolo_ext.backend import nn"),
        ("layers/x.py", "from mindyolo_ext.models.registry import create_model"),
        ("layers/x.py", "from ..models import create_model"),
        ("losses/x.py", "from mindyolo_ext.models.registry import create_model"),
        ("losses/x.py", "from mindyolo_ext.models.yolo_fastestv2.loss import YoloFastestV2Loss"),
        ("backend/x.py", "from mindyolo_ext.layers.conv import conv2d"),
        ("backend/x.py", "import mindspore"),
        ("backend/x.py", "def f():\n    from mindspore import ops"),
        ("backend/on_mindspore/x.py", "import torch"),
        ("backend/on_mindspore/x.py", "from mindyolo_ext.engine import build"),
        ("config/read.py", "from mindyolo_ext.engine import build"),
        ("engine/schedule/decays.py", "from mindyolo_ext.engine.build import new_model"),
        ("engine/schedule/decays.py", "def f():\n    import mindspore"),
        ("contracts.py", "from mindyolo_ext.backend import nn"),
        ("data/x.py", "from mindyolo_ext.backend import Tensor"),
        ("data/x.py", "from mindyolo_ext.models.registry import load_augmentations"),
        ("evaluation/x.py", "import mindspore"),
        ("visual/x.py", "def f():\n    import mindspore"),
        ("checkpoint/x.py", "def f():\n    from mindspore import load_checkpoint"),
        ("checkpoint/x.py", "from mindyolo_ext.models.yolox.names import TABLE"),
        ("checkpoint/x.py", "def f():\n    import torch"),
        ("engine/x.py", "def f():\n    import mindspore as ms"),
        ("engine/x.py", "from mindyolo_ext.cli import main"),
        ("engine/x.py", "from mindyolo_ext.models.yolox.network import YOLOX"),
        ("cli/x.py", "from mindyolo_ext.engine import train"),
        ("cli/x.py", "def f():\n    import mindspore"),
        ("__init__.py", "from mindyolo_ext.models.registry import create_model"),
    ],
)
def test_import_rules_notice(path: str, line: str):
    assert import_violations(line + "\n", path), line


def test_import_rules_allow_what_the_design_allows():
    for path, line in (
        ("models/x/network.py", "from mindyolo_ext.models.registry import register_model"),
        ("models/x/loss.py", "from mindyolo_ext.models.x.network import X"),
        ("models/x/names.py", "from mindyolo_ext.models.x.variants import VARIANTS"),
        ("models/x/augment.py", "from mindyolo_ext.data.augment.canvas import join"),
        ("losses/x.py", "from mindyolo_ext.losses.assign.anchor_ratio import AnchorRatioAssigner"),
        ("engine/x.py", "from mindyolo_ext.models.registry import create_trainable"),
        ("backend/x.py", "from mindyolo_ext.contracts import Cell"),
        ("backend/on_mindspore/x.py", "from mindspore import ops"),
        ("cli/x.py", "from mindyolo_ext import __version__"),
        ("cli/x.py", "from mindyolo_ext.cli.arguments import Verb"),
        ("engine/train.py", "from mindyolo_ext.engine.schedule import Schedule"),
    ):
        assert import_violations(line + "\n", path) == [], line
    line = "from mindyolo_ext.models.y.network import Y\n"
    assert import_violations(line, "models/x/network.py", {"x": ("y",)}) == []


def test_programs_import_no_framework():
    files = [ROOT / "train.py", ROOT / "test.py", *sorted((ROOT / "deploy").rglob("*.py"))]
    assert [
        f"{path.name}: {item.full}"
        for path in files
        for item in imports(ast.parse(path.read_text(encoding="utf-8")))
        if item.full.split(".")[0] in FRAMEWORKS
    ] == []


def test_no_two_modules_import_each_other():
    assert import_circles(without_originals()) == []


def test_circles_of_imports_are_noticed():
    one, two = "from mindyolo_ext.data import two\n", "import mindyolo_ext.data.three\n"
    three = "def f():\n    from mindyolo_ext.data.one import g\n"
    assert import_circles({"data/one.py": one, "data/two.py": two, "data/three.py": three}) == [
        "mindyolo_ext.data.one -> mindyolo_ext.data.two -> mindyolo_ext.data.three -> "
        "mindyolo_ext.data.one"
    ]
    assert import_circles({"data/one.py": one, "data/two.py": two, "data/three.py": ""}) == []


def test_nothing_imports_the_scripts_for_the_originals():
    assert [
        p
        for p, text in without_originals().items()
        if re.search(r"import.*(\.original|run_original|stand_ins)\b", text)
    ] == []


def loaded_modules(code: str) -> set[str]:
    """``sys.modules`` of a fresh Python after ``code``."""
    listing = "\nimport sys\nsys.stderr.write('LOADED ' + ' '.join(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code + listing],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    modules = done.stderr.rpartition("LOADED ")[2].split()
    assert "mindyolo_ext" in modules, done.stderr
    return set(modules)


def loaded_frameworks(code: str) -> set[str]:
    """Frameworks in ``sys.modules`` of a fresh Python after ``code``."""
    return loaded_modules(code) & {*FRAMEWORKS, "mindyolo_ext.backend"}


@pytest.mark.parametrize(
    "code",
    [
        "import mindyolo_ext",
        "from mindyolo_ext.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    "
        "pass",
        "from mindyolo_ext.cli import main\ntry:\n    main(['train', '--help'])\nexcept "
        "SystemExit:\n    pass",
    ],
    ids=["package", "help", "train-help"],
)
def test_framework_stays_out_of_the_package_and_its_help(code: str):
    assert loaded_frameworks(code) == set()


def test_parts_without_a_framework_load_none():
    plain = sources(
        "config",
        "engine/datasets.py",
        "engine/schedule",
        "engine/stages.py",
        "input_spec.py",
        "class_names.py",
        "priors.py",
        "progress.py",
        "data",
        "evaluation",
        "visual",
        "checkpoint",
        "contracts.py",
        "errors.py",
        "models/registry.py",
    )
    for name in families():
        plain |= {
            path: text
            for path, text in sources(f"models/{name}").items()
            if Path(path).stem in ("__init__", "variants", "names", "augment")
        }
    modules = [
        f"mindyolo_ext.{path.removesuffix('.py').replace('/', '.')}"
        for path in plain
        if not ORIGINALS.fullmatch(path) and not path.endswith("__init__.py")
    ]
    assert len(modules) > 20
    assert loaded_frameworks("import " + ", ".join(modules)) == set()


def test_loaded_frameworks_notices_mindspore():
    assert loaded_frameworks(
        "import sys, types, mindyolo_ext\nsys.modules['mindspore'] = types.ModuleType('x')"
    ) == {"mindspore"}


# ---- what never appears --------------------------------------------------------------------------


def test_library_has_no_banned_construct():
    assert [
        v for path, text in without_originals().items() for v in banned_constructs(text, path)
    ] == []


def test_entry_points_have_no_banned_construct():
    files = [ROOT / "train.py", ROOT / "test.py", *sorted((ROOT / "deploy").glob("*.py"))]
    assert len(files) >= 4
    found = [
        v
        for path in files
        for v in banned_constructs(path.read_text(encoding="utf-8"), path.name, entry_point=True)
    ]
    assert [line for line in found if not line.endswith("print()")] == []  # programs may print
    assert all(
        len((ROOT / name).read_text(encoding="utf-8").splitlines()) < 80
        for name in ("train.py", "test.py")
    )


@pytest.mark.parametrize(
    "snippet",
    [
        "eval('1')",
        "exec('a = 1')",
        "print('x')",
        "from os import *",
        "import sys\nsys.exit(1)",
        "def f():\n    exit(1)",
        "try:\n    pass\nexcept:\n    pass",
        "def f(a, **rest):\n    return a",
        "def f(a=[]):\n    return a",
        "def f(*, a=dict()):\n    return a",
        "def f(act=nn.SiLU()):\n    return act",
        "from mindyolo_ext.backend import BACKEND\nif BACKEND == 'torch':\n    pass",
        "import mindyolo_ext.backend as b\nx = 1 if b.BACKEND == 'torch' else 2",
    ],
)
def test_banned_constructs_are_noticed(snippet: str):
    assert len(banned_constructs(snippet, "layers/x.py")) == 1


def test_allowed_constructs_are_not_reported():
    fine = (
        "def f(a=None, *, act=nn.SiLU, **keywords):\n    model.eval()\n    return g(a, "
        "**keywords)\n"
        "try:\n    pass\nexcept ValueError:\n    pass\n"
        "if __name__ == '__main__':\n    import sys\n    sys.exit(f())\n"
    )
    assert banned_constructs(fine, "layers/x.py") == []
    assert banned_constructs("if BACKEND == 'mindspore':\n    pass", "backend/x.py") == []
    assert banned_constructs("sys.exit(main())", "train.py", entry_point=True) == []


def test_tensors_are_handled_by_functions():
    assert [
        v for path, text in sources(*GRAPH_FILES).items() for v in tensor_methods(text, path)
    ] == []


@pytest.mark.parametrize(
    "body",
    [
        "x.reshape(1, -1)",
        "x.sum()",
        "(x * 2).astype(y)",
        "self.anchors.view(1)",
        "x.T",
        "x[0].mean(1)",
        "ops.exp(x).transpose(0, 1)",
        "x.unknown_method()",
        "heads[1].max()",
    ],
)
def test_tensor_methods_are_noticed(body: str):
    for head in (
        "def construct(self, x):",
        "def decode(self, x: Tensor) -> Tensor:",
        "def f(heads: Heads):",
    ):
        assert tensor_methods(f"class A:\n    {head}\n        return {body}\n", "models/x.py")


def test_functions_and_cells_are_not_tensor_methods():
    body = (
        "self.model.predict(ops.reshape(x, x.shape)) + math.sqrt(2) + self.sum(x) "
        "+ x[:, 1:] * np.float32(1)"
    )
    assert (
        tensor_methods(
            f"class A:\n    def construct(self, x):\n        return {body}\n", "models/x.py"
        )
        == []
    )
    assert (
        tensor_methods(
            "def f(cell: nn.Cell):\n    return cell.weight.asnumpy().astype(y)\n", "layers/x.py"
        )
        == []
    )


# ---- public API ----------------------------------------------------------------------------------


def test_public_api_is_documented_and_typed():
    assert public_api_problems(without_originals()) == []


@pytest.mark.parametrize(
    ("snippet", "wanted"),
    [
        ("'''M.'''\ndef f(a: int) -> int:\n    return a", "no docstring"),
        ("'''M.'''\ndef f(a) -> int:\n    '''D.'''", "no type hint for a"),
        ("'''M.'''\ndef f(*rest: int, **more) -> int:\n    '''D.'''", "no type hint for more"),
        ("'''M.'''\ndef f(a: int):\n    '''D.'''", "no return type"),
        (
            "'''M.'''\ndef f(a: int, b: int, c: int, d: int, e: int, g: int) -> None:\n    "
            "'''D.'''",
            "6 positional",
        ),
        ("'''M.'''\nclass A:\n    pass", "class A: no docstring"),
        (
            "'''M.'''\nclass A:\n    '''D.'''\n    def f(self) -> None:\n        pass",
            "A.f: no docstring",
        ),
        (
            "'''M.'''\nclass A:\n    '''D.'''\n    def __init__(self, a):\n        pass",
            "no type hint for a",
        ),
        ("a = 1", "module without docstring"),
    ],
)
def test_public_api_problems_are_noticed(snippet: str, wanted: str):
    found = public_api_problems({"x.py": snippet})
    assert len(found) == 1
    assert wanted in found[0]


def test_public_api_rules_allow_overrides_and_private_names():
    fine = (
        "'''M.'''\nclass A:\n    '''D.'''\n    def f(self, a: int, b: int, c: int, d: int, e: int) "
        "-> int:\n"
        "        '''D.'''\n    def construct(self, x: int) -> int:\n        return x\n"
        "class B(A):\n    '''D.'''\n    def f(self, a: int, b: int, c: int, d: int, e: int) -> "
        "int:\n"
        "        return a\n"
        "def _private(a):\n    return a\n"
    )
    assert public_api_problems({"x.py": fine}) == []


# ---- the repository ------------------------------------------------------------------------------


def repository_files() -> list[Path]:
    """Files that are committed or could be: tracked ones and untracked ones that are not
    ignored.
    """
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in done.stdout.split("\0") if name]
    return [path for path in files if path.is_file()]


def forbidden_lines(path: Path, name: str) -> list[str]:
    """Lines of a text file that speak of places outside the repository."""
    data = path.read_bytes()
    if b"\0" in data[:4096]:
        return []
    lines = data.decode("utf-8", "replace").splitlines()
    return [
        f"{name}:{n}: {line.strip()[:100]}"
        for n, line in enumerate(lines, 1)
        if FORBIDDEN.search(line)
        and not (name.startswith("tests/") and "MINDYOLO_EXT_SHARED" in line)
    ]


def check_files(wrong: Callable[[Path, str], list[str]]) -> list[str]:
    files = repository_files()
    assert len(files) > 50
    return [line for path in files for line in wrong(path, path.relative_to(ROOT).as_posix())]


def test_no_file_names_places_outside_the_repository():
    assert check_files(forbidden_lines) == []


def test_no_file_is_larger_than_five_megabytes():
    assert check_files(lambda path, name: [name] if path.stat().st_size > MAX_BYTES else []) == []


@pytest.mark.parametrize("text", ["see /wor" + "k/data", "path = '../share" + "d/x'"])
def test_forbidden_words_are_noticed(tmp_path: Path, text: str):
    (tmp_path / "a.md").write_text(f"fine: workers, /workers, shared\n{text}\n", encoding="utf-8")
    assert len(forbidden_lines(tmp_path / "a.md", "docs/a.md")) == 1
    assert forbidden_lines(tmp_path / "a.md", "docs/a.md")[0].startswith("docs/a.md:2:")


# ---- house style ---------------------------------------------------------------------------------


def test_ruff_finds_nothing():
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", str(ROOT)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout


def test_docs_name_files_that_exist():
    places = [ROOT, PACKAGE, PACKAGE / "models"]
    named = re.compile(
        r"`((?:mindyolo_ext|models|layers|losses|data|engine|checkpoint|tests)/[\w/.]+\.py)`"
    )
    missing = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        if page.name != "adding_a_family.md":  # its files exist in its own test
            found = named.findall(page.read_text(encoding="utf-8"))
            missing += [
                f"{page.name}: {name}"
                for name in found
                if not any((place / name).is_file() for place in places)
            ]
    assert missing == []


def test_public_names_are_found_when_wanted():
    names = [name for name in mindyolo_ext.__all__ if name != "__version__"]
    found = {name: inspect.getmodule(getattr(mindyolo_ext, name)).__name__ for name in names}
    assert found["Detector"] == "mindyolo_ext.engine.predict"
    assert found["convert"] == "mindyolo_ext.checkpoint.convert"
    assert all(home.startswith("mindyolo_ext.") for home in found.values())
    with pytest.raises(AttributeError, match="has no attribute 'detector'"):
        mindyolo_ext.detector  # noqa: B018

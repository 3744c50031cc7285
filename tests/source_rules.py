"""The rules of docs/design.md as functions from source text to violations; test_architecture.py
applies and tests them.

Every function returns a list of ``"place: what is wrong"``, so that a failing test shows all of
them.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "mindyolo_ext"
FRAMEWORKS = ("mindspore", "torch", "tensorflow", "jax", "paddle")
# import only each other from this package, and no framework
BASE = {
    "atomic",
    "class_match",
    "class_names",
    "contracts",
    "errors",
    "framework",
    "input_spec",
    "priors",
    "progress",
    "__init__",
}
# The roles of a family's files
FAMILY_PARTS = {
    "__init__": "facts",
    "variants": "facts",
    "network": "network",
    "loss": "loss",
    "names": "names",
    "augment": "augment",
    "reference": "reference",
}
# part of the package, see ``part_of`` -> the parts it may import; "__init__" is the version number
MAY_IMPORT = {
    "__init__": {"api", "engine", "former_names", "registry"},  # inside __getattr__ only
    "api": {"backend", "config", "engine", "errors", "framework", "runtimes"},
    "atomic": {"errors"},
    "class_match": {"errors"},
    "class_names": set(),
    "errors": set(),
    "former_names": set(),
    "framework": {"errors"},
    "input_spec": {"errors"},
    "priors": set(),
    "progress": set(),
    "yaml_file": {"errors"},
    "contracts": {"input_spec", "priors"},
    "config": {"errors", "yaml_file"},
    "schedule": {"config"},
    "backend": {"backend", "contracts", "errors", "framework", "input_spec"},
    "layers": {"backend", "layers"},
    "losses": {"backend", "layers", "losses"},
    "runtimes": {
        "backend",
        "checkpoint",
        "contracts",
        "errors",
        "evaluation",
        "framework",
        "input_spec",
        "runtimes",
    },
    "registry": {"contracts", "errors", "registry"},
    "facts": {"contracts", "facts", "input_spec"},
    "network": {"backend", "contracts", "facts", "layers", "priors", "registry"},
    "loss": {"backend", "contracts", "facts", "layers", "losses", "network", "registry"},
    "names": {"checkpoint", "errors", "facts", "input_spec"},
    "augment": {"data", "errors", "facts", "input_spec"},
    "reference": {"backend", "errors", "facts"},
    "data": {
        "atomic",
        "class_match",
        "class_names",
        "data",
        "errors",
        "former_names",
        "input_spec",
        "progress",
        "yaml_file",
    },
    "evaluation": {"atomic", "evaluation", "errors", "input_spec", "progress"},
    "visual": {"atomic", "visual", "data", "evaluation", "input_spec", "priors"},
    "checkpoint": {
        "atomic",
        "backend",
        "checkpoint",
        "class_names",
        "data",
        "errors",
        "framework",
        "input_spec",
        "registry",
        "__init__",
    },
    "engine": {
        "backend",
        "checkpoint",
        "config",
        "data",
        "engine",
        "evaluation",
        "layers",
        "losses",
        "registry",
        "runtimes",
        "schedule",
        "visual",
        "yaml_file",
    }
    | BASE,
    "serve": {"data", "engine", "evaluation", "serve"} | BASE,
    "cli": {
        "backend",
        "checkpoint",
        "config",
        "data",
        "engine",
        "evaluation",
        "registry",
        "runtimes",
        "serve",
        "visual",
        "yaml_file",
    }
    | BASE,
}
# folder below the package -> the framework that its files may import; no other file imports one
FRAMEWORK_USE = {"backend/on_mindspore": "mindspore", "backend/on_torch": "torch"}
TENSOR_METHODS = frozenset(
    (
        "abs",
        "add",
        "all",
        "any",
        "argmax",
        "argmin",
        "asnumpy",
        "astype",
        "broadcast_to",
        "clamp",
        "clip",
        "copy",
        "cumsum",
        "div",
        "exp",
        "expand",
        "expand_as",
        "expand_dims",
        "fill",
        "flatten",
        "float",
        "gather",
        "half",
        "index_select",
        "int",
        "item",
        "log",
        "long",
        "masked_fill",
        "matmul",
        "max",
        "mean",
        "min",
        "mul",
        "narrow",
        "norm",
        "numpy",
        "permute",
        "pow",
        "prod",
        "repeat",
        "reshape",
        "resize",
        "round",
        "scatter",
        "sigmoid",
        "sin",
        "softmax",
        "sort",
        "split",
        "sqrt",
        "square",
        "squeeze",
        "std",
        "sub",
        "sum",
        "swapaxes",
        "take",
        "tile",
        "to",
        "tolist",
        "topk",
        "transpose",
        "type",
        "unbind",
        "unsqueeze",
        "var",
        "view",
        "where",
    )
)
TENSOR_TYPES = frozenset({"Tensor", "Heads", "Box", "Assignment"})
MODULES = frozenset({"ops", "nn", "np", "math"})


@dataclass(frozen=True)
class Imported:
    """One imported name: ``module`` with the name it brings, and whether it is inside a
    function.
    """

    line: int
    module: str
    name: str
    lazy: bool

    @property
    def full(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module


def imports(tree: ast.Module) -> list[Imported]:
    """Every import of a file except those for type checkers only."""
    found: list[Imported] = []

    def walk(node: ast.AST, lazy: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
                continue
            if isinstance(child, ast.Import):
                found.extend(Imported(child.lineno, a.name, "", lazy) for a in child.names)
            elif isinstance(child, ast.ImportFrom):
                found.extend(
                    Imported(child.lineno, "." * child.level + (child.module or ""), a.name, lazy)
                    for a in child.names
                )
            walk(child, lazy or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)))

    walk(tree, False)
    return found


def part_of(parts: tuple[str, ...]) -> str:
    """The key of ``MAY_IMPORT`` for a module below the package, such as ("models", "yolox",
    "loss").

    A folder stands for all of its files; in ``models`` every file of a family is a part of its own,
    and ``engine/schedule`` is one because it loads no framework.
    """
    if parts[:2] == ("engine", "schedule"):
        return "schedule"
    if parts[0] != "models" or len(parts) < 2 or parts[1] in ("registry", "tables", "__init__"):
        return "registry" if parts[0] == "models" else parts[0]
    return FAMILY_PARTS.get(parts[2] if len(parts) > 2 else "__init__", "facts")


def import_violations(
    source: str, path: str, parents: Mapping[str, tuple[str, ...]] | None = None
) -> list[str]:
    """Breaches of the import rules in a file at ``path`` below the package (``losses/iou.py``).

    Args:
        parents: families that a family may import from, by its name.
    """
    parts, wrong = Path(path).with_suffix("").parts, []
    part, parents = part_of(parts), parents or {}
    for item in imports(ast.parse(source)):
        place, top = f"{path}:{item.line}", item.full.split(".")[0]
        if item.module.startswith("."):
            wrong.append(f"{place}: relative import")
        elif top in FRAMEWORKS:
            if FRAMEWORK_USE.get(Path(path).parent.as_posix()) != top:
                wrong.append(f"{place}: {part} imports {item.full}")
        elif top == PACKAGE:
            wrong += [
                f"{place}: {problem}" for problem in _inner_import(item, parts, parents or {})
            ]
    return wrong


def _inner_import(
    item: Imported, parts: tuple[str, ...], parents: Mapping[str, tuple[str, ...]]
) -> Iterator[str]:
    """What is wrong with an import of our own package from the module ``parts``."""
    part, target = part_of(parts), tuple(item.full.split(".")[1:])
    goal = part_of(target) if target else "__init__"
    if goal not in MAY_IMPORT:
        goal = "__init__"
    if goal not in MAY_IMPORT[part] and goal != part:
        yield f"{part} imports {item.full}"
    if part == "__init__" and not item.lazy and goal != "former_names":
        yield f"the package imports {item.full} at the top"
    if part == "checkpoint" and goal == "backend" and not item.lazy:
        yield f"checkpoint imports {item.full} at the top"
    if part == "cli" and goal not in ("__init__", "cli", "errors", "framework") and not item.lazy:
        yield f"cli imports {item.full} at the top"
    if parts[0] == "models" and target[:1] == ("models",) and part != "registry":
        known = (parts[1], "registry", *parents.get(parts[1], ()))
        if target[1] not in known:
            yield f"a family imports {item.full} of another"


def import_circles(sources: Mapping[str, str]) -> list[str]:
    """Modules that import each other, imports inside functions included, as ``a -> b -> a``.

    The package's own ``__init__`` is left out: it imports the engine only when asked for a name.

    Args:
        sources: text by path below the package.
    """
    modules = {_module_name(path): text for path, text in sources.items()}
    targets = {
        name: {
            next((full for full in (item.full, item.module) if full in modules), name)
            for item in imports(ast.parse(text))
        }
        - {name, PACKAGE}
        for name, text in modules.items()
    }
    found: list[str] = []
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> None:
        if name in way:
            found.append(" -> ".join([*way[way.index(name) :], name]))
        elif name not in done:
            for target in sorted(targets[name]):
                visit(target, [*way, name])
            done.add(name)

    for name in sorted(targets):
        visit(name, [])
    return found


def _module_name(path: str) -> str:
    parts = (PACKAGE, *Path(path).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def banned_constructs(source: str, path: str, *, entry_point: bool = False) -> list[str]:
    """eval, exec, import *, bare except, swallowed keywords, mutable defaults, sys.exit in a
    library, BACKEND.
    """
    tree, wrong = ast.parse(source), []
    main_block = {
        id(n)
        for stmt in tree.body
        if isinstance(stmt, ast.If) and "__main__" in ast.unparse(stmt.test)
        for n in ast.walk(stmt)
    }
    for node in ast.walk(tree):
        place = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("eval", "exec", "print"):
                wrong.append(f"{place}: {called}()")
            if (
                called in ("sys.exit", "exit", "quit")
                and not entry_point
                and id(node) not in main_block
            ):
                wrong.append(f"{place}: {called}() in a library")
        elif isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names):
            wrong.append(f"{place}: import *")
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            wrong.append(f"{place}: bare except")
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            wrong += [f"{place}: {problem}" for problem in _signature_problems(node)]
        elif (
            isinstance(node, (ast.If, ast.IfExp))
            and not path.startswith("backend/")
            and any(
                isinstance(n, (ast.Name, ast.Attribute))
                and ast.unparse(n).split(".")[-1] == "BACKEND"
                for n in ast.walk(node.test)
            )
        ):
            wrong.append(f"{place}: if BACKEND")
    return wrong


def _signature_problems(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Defaults that are shared between calls, and keywords that nobody reads."""
    defaults = [d for d in (*function.args.defaults, *function.args.kw_defaults) if d is not None]
    for default in defaults:
        if isinstance(
            default,
            (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp, ast.Call),
        ):
            yield f"{function.name}: mutable default {ast.unparse(default)}"
    rest = function.args.kwarg
    if rest is not None and not any(
        isinstance(n, ast.Name) and n.id == rest.arg and isinstance(n.ctx, ast.Load)
        for statement in function.body
        for n in ast.walk(statement)
    ):
        yield f"{function.name}: swallows **{rest.arg}"


def tensor_methods(source: str, path: str) -> list[str]:
    """Method calls (and ``.T``) on tensors in functions that take or return tensors, which
    belong into ``ops``.
    """
    wrong = []
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef) and _handles_tensors(function):
            for node in (n for statement in function.body for n in ast.walk(statement)):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and _is_tensor_method(node.func)
                ):
                    wrong.append(
                        f"{path}:{node.lineno}: {function.name}: {ast.unparse(node.func)}()"
                    )
                elif isinstance(node, ast.Attribute) and node.attr in ("T", "mT", "ndim", "H"):
                    wrong.append(f"{path}:{node.lineno}: {function.name}: {ast.unparse(node)}")
    return wrong


def _handles_tensors(function: ast.FunctionDef) -> bool:
    if any(ast.unparse(decorator) == "ops.constexpr" for decorator in function.decorator_list):
        return False  # runs on the host while a graph is compiled
    arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    notes = [a.annotation for a in arguments] + [function.returns]
    used = {
        n.id
        for note in notes
        if note is not None
        for n in ast.walk(note)
        if isinstance(n, ast.Name)
    }
    return function.name == "construct" or bool(used & TENSOR_TYPES)


def _is_tensor_method(called: ast.Attribute) -> bool:
    root: ast.expr = called.value
    while isinstance(root, (ast.Attribute, ast.Subscript)):
        root = root.value
    if isinstance(called.value, ast.Name) and called.value.id in MODULES | {"self"}:
        return False  # ops.reshape(x), self.loss(x)
    of_a_cell = isinstance(root, ast.Name) and root.id == "self"
    return (
        called.attr in TENSOR_METHODS
        or not of_a_cell
        and not (isinstance(root, ast.Name) and root.id in MODULES)
    )


def public_api_problems(sources: Mapping[str, str]) -> list[str]:
    """Public functions, classes and methods without docstring or hints, or with more than five
    positional parameters.

    A method that overrides a documented one needs no docstring of its own, nor does ``construct``:
    its class has one.
    """
    trees = {path: ast.parse(source) for path, source in sources.items()}
    classes = {
        node.name: node
        for tree in trees.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
    wrong = []
    for path, tree in trees.items():
        if ast.get_docstring(tree) is None and tree.body:
            wrong.append(f"{path}:1: module without docstring")
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                wrong += [
                    f"{path}:{node.lineno}: {node.name}: {p}"
                    for p in _function_problems(node, documented=False)
                ]
            elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                if ast.get_docstring(node) is None:
                    wrong.append(f"{path}:{node.lineno}: class {node.name}: no docstring")
                for method in (n for n in node.body if isinstance(n, ast.FunctionDef)):
                    if not method.name.startswith("_") or method.name == "__init__":
                        wrong += [
                            f"{path}:{method.lineno}: {node.name}.{method.name}: {p}"
                            for p in _function_problems(
                                method, documented=_inherits_docstring(method, node, classes)
                            )
                        ]
    return wrong


def _inherits_docstring(
    method: ast.FunctionDef, owner: ast.ClassDef, classes: Mapping[str, ast.ClassDef]
) -> bool:
    if method.name in ("__init__", "construct"):
        return True
    if any(ast.unparse(decorator) == "overload" for decorator in method.decorator_list):
        return True  # the method itself has it
    for base in (classes.get(ast.unparse(b).split(".")[-1]) for b in owner.bases):
        if base is not None and (
            any(
                isinstance(n, ast.FunctionDef) and n.name == method.name and ast.get_docstring(n)
                for n in base.body
            )
            or _inherits_docstring(method, base, classes)
        ):
            return True
    return False


def _function_problems(function: ast.FunctionDef, *, documented: bool) -> Iterator[str]:
    if not documented and ast.get_docstring(function) is None:
        yield "no docstring"
    positional = [
        a for a in (*function.args.posonlyargs, *function.args.args) if a.arg not in ("self", "cls")
    ]
    if len(positional) > 5:
        yield f"{len(positional)} positional parameters"
    named = (
        *positional,
        *function.args.kwonlyargs,
        *(a for a in (function.args.vararg, function.args.kwarg) if a),
    )
    bare = [a.arg for a in named if a.annotation is None]
    if bare:
        yield f"no type hint for {', '.join(bare)}"
    if function.returns is None and function.name != "__init__":
        yield "no return type"


def used_names(source: str) -> set[str]:
    """``nn.X`` and ``ops.X`` in use, and what is imported from mindspore, as dotted names."""
    tree = ast.parse(source)
    found = {
        f"{n.value.id}.{n.attr}"
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute)
        and isinstance(n.value, ast.Name)
        and n.value.id in ("nn", "ops")
    }
    return found | {
        item.full
        for item in imports(tree)
        if item.module.split(".")[0] == "mindspore" and item.name
    }


def documented_platforms(docstring: str | None) -> set[str]:
    """Devices in the section ``Supported Platforms:`` of a docstring."""
    match = re.search(r"Supported Platforms:\s*\n(.*)", docstring or "")
    return set(re.findall(r"``(\w+)``", match.group(1))) if match else set()

"""Every backend offers what models, losses and engine use, with the arguments that they pass.

The test reads source text, so it also covers backends whose framework is not installed.
"""

import ast
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import REPOSITORY

from mindyolo_ext.models.registry import families

PACKAGE = REPOSITORY / "mindyolo_ext"
SEAM = PACKAGE / "backend"
USERS = (
    *sorted((PACKAGE / "layers").rglob("*.py")),
    *sorted((PACKAGE / "losses").rglob("*.py")),
    *sorted((PACKAGE / "engine").rglob("*.py")),
    *(PACKAGE / f"models/{name}/{part}.py" for name in families() for part in ("network", "loss")),
    SEAM / "distributed.py",
)
MODULES = ("nn", "ops")
# What torch.nn.Module has itself: a cell's own method or attribute of that name would replace it
TAKEN = frozenset(
    [
        "T_destination",
        "add_module",
        "apply",
        "bfloat16",
        "buffers",
        "call_super_init",
        "children",
        "compile",
        "cpu",
        "cuda",
        "double",
        "dump_patches",
        "eval",
        "extra_repr",
        "float",
        "forward",
        "get_buffer",
        "get_extra_state",
        "get_parameter",
        "get_submodule",
        "half",
        "ipu",
        "load_state_dict",
        "modules",
        "mtia",
        "named_buffers",
        "named_children",
        "named_modules",
        "named_parameters",
        "parameters",
        "register_backward_hook",
        "register_buffer",
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
        "register_load_state_dict_post_hook",
        "register_load_state_dict_pre_hook",
        "register_module",
        "register_parameter",
        "register_state_dict_post_hook",
        "register_state_dict_pre_hook",
        "requires_grad_",
        "set_extra_state",
        "set_submodule",
        "share_memory",
        "state_dict",
        "to",
        "to_empty",
        "train",
        "type",
        "xpu",
        "zero_grad",
    ]
)


@dataclass(frozen=True)
class Use:
    """``nn.X`` or ``ops.X`` in a source text; ``call`` if it is called there."""

    place: str
    module: str
    name: str
    call: ast.Call | None

    def bind(self, signature: inspect.Signature) -> None:
        """Raises: TypeError if the call does not fit."""
        starred = any(isinstance(argument, ast.Starred) for argument in self.call.args)
        given = [None for a in self.call.args if not isinstance(a, ast.Starred)]
        keywords = {k.arg: None for k in self.call.keywords if k.arg is not None}
        open_end = starred or any(k.arg is None for k in self.call.keywords)
        (signature.bind_partial if open_end else signature.bind)(*given, **keywords)


def uses_in(source: str, place: str) -> Iterator[Use]:
    """Find every use in a source text."""
    tree = ast.parse(source)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in MODULES
        ):
            where = f"{place}:{node.lineno}"
            yield Use(where, node.value.id, node.attr, calls.get(id(node)))


def all_uses() -> list[Use]:
    return [
        use
        for path in USERS
        for use in uses_in(path.read_text(encoding="utf-8"), str(path.relative_to(PACKAGE)))
    ]


def signature_of(arguments: ast.arguments, *, method: bool) -> inspect.Signature:
    """The signature of a function as its source text declares it."""
    kinds, parameters = inspect.Parameter, []
    plain = [*arguments.posonlyargs, *arguments.args]
    required = len(plain) - len(arguments.defaults)
    for i, argument in enumerate(plain):
        default = kinds.empty if i < required else None
        parameters.append(kinds(argument.arg, kinds.POSITIONAL_OR_KEYWORD, default=default))
    if arguments.vararg:
        parameters.append(kinds(arguments.vararg.arg, kinds.VAR_POSITIONAL))
    for argument, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        default = kinds.empty if value is None else None
        parameters.append(kinds(argument.arg, kinds.KEYWORD_ONLY, default=default))
    return inspect.Signature(parameters[1:] if method else parameters)


def signatures_in(path: Path) -> dict[str, inspect.Signature]:
    """Functions and classes of a module, by name, without importing it."""
    found: dict[str, inspect.Signature] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = signature_of(node.args, method=False)
        elif isinstance(node, ast.ClassDef):
            own = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
            bases = [found[ast.unparse(b)] for b in node.bases if ast.unparse(b) in found]
            if own:
                found[node.name] = signature_of(own[0].args, method=True)
            else:
                found[node.name] = bases[0] if bases else inspect.Signature()
    return found


def problems(uses: list[Use], offers: dict[str, dict[str, inspect.Signature | None]]) -> list[str]:
    """Uses that a backend does not support; a signature of None accepts everything."""
    wrong = []
    for use in uses:
        if use.name not in offers[use.module]:
            wrong.append(f"{use.place}: no {use.module}.{use.name}")
            continue
        signature = offers[use.module][use.name]
        if use.call is not None and signature is not None:
            try:
                use.bind(signature)
            except TypeError as error:
                wrong.append(f"{use.place}: {use.module}.{use.name}: {error}")
    return wrong


def offers_of(folder: str) -> dict[str, dict[str, inspect.Signature | None]]:
    return {name: signatures_in(SEAM / folder / f"{name}.py") for name in MODULES}


def test_torch_offers_every_name_with_its_arguments() -> None:
    uses = all_uses()
    assert len(uses) > 900 and {use.name for use in uses} >= {"Conv2d", "topk", "constexpr"}
    assert problems(uses, offers_of("on_torch")) == []


def test_shapes_offers_every_layer_with_its_arguments() -> None:
    """Of the operators, the shapes backend has only those that constructors call; building all
    models tests these.
    """
    layers = [use for use in all_uses() if use.module == "nn"]
    assert problems(layers, offers_of("on_shapes")) == []


@pytest.mark.needs_mindspore
def test_mindspore_offers_every_name_with_its_arguments() -> None:
    uses, offers = all_uses(), {}
    for name in MODULES:
        module = importlib.import_module(f"mindspore.{name}")
        offers[name] = {}
        for used in {use.name for use in uses if use.module == name and hasattr(module, use.name)}:
            try:
                offers[name][used] = inspect.signature(getattr(module, used))
            except ValueError:  # written in C++
                offers[name][used] = None
    assert sum(s is not None for own in offers.values() for s in own.values()) > 70
    assert problems(uses, offers) == []


def test_a_missing_name_and_a_wrong_argument_are_found() -> None:
    text = "ops.cat((x, y), 1)\nops.sum(x, 0, True, 3)\nops.eigh(x)\nnn.Conv2d(3, 4, bias=True)"
    assert problems(list(uses_in(text, "x.py")), offers_of("on_torch")) == [
        "x.py:2: ops.sum: too many positional arguments",
        "x.py:3: no ops.eigh",
        "x.py:4: nn.Conv2d: missing a required argument: 'kernel_size'",
    ]


def imports_of(tree: ast.Module, framework: str) -> dict[str, set[str]]:
    """What a module of the seam imports from ``on_<framework>``: names by module."""
    begin = f"mindyolo_ext.backend.on_{framework}"
    return {
        node.module.removeprefix(begin): {alias.name for alias in node.names}
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(begin)
    }


@pytest.mark.parametrize("path", sorted(SEAM.glob("*.py")), ids=lambda path: path.stem)
def test_both_backends_serve_a_module_of_the_seam_with_the_same_names(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert imports_of(tree, "torch") == imports_of(tree, "mindspore")


def taken_names(source: str) -> set[str]:
    """Names in ``TAKEN`` that classes in a source text define as methods or set on themselves."""
    found = set()
    for owner in ast.walk(ast.parse(source)):
        if isinstance(owner, ast.ClassDef) and "nn.Cell" in map(ast.unparse, owner.bases):
            found |= {n.name for n in owner.body if isinstance(n, ast.FunctionDef)}
            found |= {
                node.attr
                for node in ast.walk(owner)
                if isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and ast.unparse(node.value) == "self"
            }
    return found & TAKEN


def test_no_cell_has_a_name_that_torch_needs_itself() -> None:
    paths = (*USERS, *sorted((REPOSITORY / "tests").rglob("*.py")))
    found = {str(path): taken_names(path.read_text(encoding="utf-8")) for path in paths}
    assert {path: names for path, names in found.items() if names} == {}
    assert taken_names("class A(nn.Cell):\n  def half(self):\n    self.forward = 1") == {
        "half",
        "forward",
    }


@pytest.mark.needs_torch
def test_the_list_of_those_names_is_torch_s() -> None:
    public = {name for name in dir(importlib.import_module("torch.nn").Module) if name[0] != "_"}
    assert public <= TAKEN, "a newer PyTorch has more of them"

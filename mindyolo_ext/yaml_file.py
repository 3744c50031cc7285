"""YAML from strangers: safe types only, within stated limits, and errors with file and line."""

from collections.abc import Iterator
from typing import Any

import yaml

from mindyolo_ext.errors import DataError, UserError

# The names of ImageNet's 21,841 classes, the most that a published data set has, take 0.6 MB
MAX_BYTES = 2**20
MAX_DEPTH = 50  # recipes and data sets nest 5 deep; each level is a level of Python's stack
# Keys, values and lists with all aliases written out, so that a few lines of aliases of aliases
# cannot stand for billions
MAX_NODES = 200_000


def load_yaml(
    text: str, where: str, *, as_text: bool = False, error: type[UserError] = DataError
) -> Any:
    """The value of a YAML document, None of an empty one.

    ``yes``, ``no``, ``on`` and ``off`` are texts, as in YAML 1.2; only ``true`` and ``false`` are
    booleans.

    Args:
        text: the document.
        where: its file, for messages.
        as_text: leave every scalar the text that is written, so class names such as ``null``,
            ``1.50`` and ``true`` stay what they are.
        error: what to raise.

    Raises: ``error`` with file and line for anything but one YAML document with different keys
        and plain types within the limits of this module.
    """
    return parse_yaml(text, where, as_text=as_text, error=error)[0]


def parse_yaml(
    text: str, where: str, *, as_text: bool = False, error: type[UserError] = DataError
) -> tuple[Any, yaml.Node | None]:
    """As ``load_yaml``, with the node that knows the line of every value."""
    if len(text) > MAX_BYTES:
        raise error(
            f"{where}: wanted YAML of at most {MAX_BYTES:,} characters, got {len(text):,}; is it "
            "another kind of file?"
        )
    loader: _TextLoader | _TypedLoader
    try:
        loader = _TextLoader(text) if as_text else _TypedLoader(text)
        node = loader.get_single_node()
        return (None if node is None else loader.construct_document(node)), node
    except yaml.YAMLError as problem:
        raise error(_message(problem, where)) from problem


def _message(problem: yaml.YAMLError, where: str) -> str:
    """File, line and what PyYAML says, without the quotation of the document."""
    if not isinstance(problem, yaml.MarkedYAMLError):
        return f"{where}: wanted YAML, got {str(problem).splitlines()[0]}"
    mark = problem.problem_mark or problem.context_mark
    line = "" if mark is None else f":{mark.line + 1}"
    said = ", ".join(part for part in (problem.context, problem.problem) if part)
    return f"{where}{line}: wanted YAML: {said}"


class _Limits(yaml.composer.Composer):
    """Composes nodes within the limits, and refuses tags and keys that are there twice."""

    depth = 0
    nodes = 0  # with aliases written out
    written_out: dict[int, int]  # nodes of each finished node, by its identity

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        start, before = self.peek_event(), self.nodes
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _refusal(f"nested more than {MAX_DEPTH} deep", start)
        is_alias = isinstance(start, yaml.AliasEvent)
        tag = None if is_alias else start.tag
        if tag not in (None, "!"):
            raise _refusal(f"a plain value, got the tag {tag[:80]!r}", start)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if is_alias:
            if id(node) not in self.written_out:
                raise _refusal(f"alias *{start.anchor} inside of what it stands for", start)
            self.nodes += self.written_out[id(node)]
        else:
            self.nodes += 1
            self.written_out[id(node)] = self.nodes - before
        if self.nodes > MAX_NODES:
            raise _refusal(f"more than {MAX_NODES:,} values, aliases written out", start)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in _scalars(node):
            if (key.tag, key.value) in seen:
                raise _refusal(f"duplicate key {key.value[:80]!r}", key)
            seen.add((key.tag, key.value))
        return node


def _scalars(node: yaml.MappingNode) -> Iterator[yaml.ScalarNode]:
    """The keys of a mapping that are scalars."""
    return (key for key, _ in node.value if isinstance(key, yaml.ScalarNode))


def _refusal(text: str, place: yaml.Event | yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.composer.ComposerError(None, None, text, place.start_mark)


class _TypedLoader(_Limits, yaml.SafeLoader):
    """Numbers, texts, true and false, dates, lists and mappings."""

    def __init__(self, text: str):
        yaml.SafeLoader.__init__(self, text)
        self.written_out = {}

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as problem:  # no such date, or thousands of digits
            raise _refusal(str(problem).split(";")[0], node) from problem


class _TextLoader(_Limits, yaml.BaseLoader):
    """Every scalar as it is written."""

    def __init__(self, text: str):
        yaml.BaseLoader.__init__(self, text)
        self.written_out = {}


_BOOLEAN = "tag:yaml.org,2002:bool"
_TypedLoader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag != _BOOLEAN or first in "tTfF"  # neither yes, no, on, off nor y, n
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}

"""Read untrusted YAML: safe types only, within fixed limits, with errors that name file and
line.
"""

from typing import Any

import yaml

from mindyolo_ext.errors import DataError, UserError

# 64 letters for each of the largest number of classes in a data set
MAX_BYTES = 2**20
MAX_DEPTH = 50  # recipes and data sets nest 5 deep; each level needs a frame of Python's stack
# Keys, values and lists with all aliases written out, so that a few lines of aliases of aliases
# cannot stand for billions
MAX_NODES = 80_000
MAX_INTEGER_BITS = 64


def load_yaml(
    text: str, where: str, *, as_text: bool = False, error: type[UserError] = DataError
) -> Any:
    """Return the value of a YAML document, or None if it is empty.

    ``yes``, ``no``, ``on`` and ``off`` are texts, as in YAML 1.2; only ``true`` and ``false`` are
    booleans.

    Args:
        text: the document.
        where: its file, for messages.
        as_text: return every scalar as text, so that class names such as ``null``, ``1.50`` and
            ``true`` keep their spelling.
        error: the exception to raise.

    Raises: ``error`` with file and line for anything but a single YAML document with unique keys
        and plain types, within the limits of this module.
    """
    return parse_yaml(text, where, as_text=as_text, error=error)[0]


def parse_yaml(
    text: str, where: str, *, as_text: bool = False, error: type[UserError] = DataError
) -> tuple[Any, yaml.Node | None]:
    """Like ``load_yaml``, but also returns the node, which stores the line of every value."""
    if len(text) > MAX_BYTES:
        raise error(
            f"{where}: wanted YAML of at most {MAX_BYTES:,} characters, got {len(text):,}; is it "
            "another kind of file?"
        )
    try:
        _check_limits(text)
        loader = _TextLoader(text) if as_text else _TypedLoader(text)
        node = loader.get_single_node()
        _check_keys(node)
        return (None if node is None else loader.construct_document(node)), node
    except yaml.YAMLError as problem:
        raise error(_message(problem, where)) from problem
    except UnicodeError as problem:  # half a character, from a file name that is not UTF-8
        raise error(f"{where}: wanted YAML: {problem}") from problem


def _message(problem: yaml.YAMLError, where: str) -> str:
    """Return file, line and PyYAML's message, without its quotation of the document."""
    if not isinstance(problem, yaml.MarkedYAMLError):
        return f"{where}: wanted YAML, got {str(problem).splitlines()[0]}"
    mark = problem.problem_mark or problem.context_mark
    line = "" if mark is None else f":{mark.line + 1}"
    said = ", ".join(part for part in (problem.context, problem.problem) if part)
    return f"{where}{line}: wanted YAML: {said}"


def _check_limits(text: str) -> None:
    """Check a document's events, without keeping any of them, before values are built.

    Raises: yaml.YAMLError for a document that is nested too deep, is too large with aliases
        expanded, or has a tag.
    """
    nodes = 0  # with aliases expanded
    written_out: dict[str, int] = {}  # nodes of the value of each anchor
    above: list[tuple[str | None, int]] = []  # anchor, and nodes before, of each open collection
    for event in yaml.parse(text, Loader=_TextLoader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in written_out:
                raise _refusal(f"alias *{event.anchor[:80]} before the end of its anchor", event)
            nodes += written_out[event.anchor]
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = above.pop()
            written_out |= {anchor: nodes - before} if anchor else {}
        elif isinstance(event, yaml.NodeEvent):
            if event.tag not in (None, "!"):
                raise _refusal(f"a plain value, got the tag {event.tag[:80]!r}", event)
            nodes += 1
            if isinstance(event, yaml.CollectionStartEvent):
                above.append((event.anchor, nodes - 1))
            elif event.anchor:
                written_out[event.anchor] = 1
        if len(above) > MAX_DEPTH:
            raise _refusal(f"nested more than {MAX_DEPTH} deep", event)
        if nodes > MAX_NODES:
            raise _refusal(f"more than {MAX_NODES:,} values, aliases written out", event)


def _check_keys(root: yaml.Node | None) -> None:
    """Raises: yaml.YAMLError for a duplicate key."""
    waiting, known = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in known:  # an alias
            continue
        known.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            waiting += [value for _, value in node.value]
            keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            seen: set[tuple[str, str]] = set()
            for key in keys:
                if (key.tag, key.value) in seen:
                    raise _refusal(f"duplicate key {key.value[:80]!r}", key)
                seen.add((key.tag, key.value))


def _refusal(text: str, place: yaml.Event | yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.composer.ComposerError(None, None, text, place.start_mark)


# libyaml, if PyYAML was built with it, takes a twentieth of the time
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BaseLoader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class _TypedLoader(_SafeLoader):
    """Load numbers, texts, true and false, dates, lists and mappings."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, OverflowError) as problem:  # no such date, or thousands of digits
            raise _refusal(str(problem).split(";")[0], node) from problem
        if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
            raise _refusal(
                f"an integer of {value.bit_length()} bits, at most {MAX_INTEGER_BITS} are read",
                node,
            )
        return value


class _TextLoader(_BaseLoader):
    """Keep the spelling of every scalar."""


_BOOLEAN = "tag:yaml.org,2002:bool"
_TypedLoader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag != _BOOLEAN or first in "tTfF"  # neither yes, no, on, off nor y, n
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}

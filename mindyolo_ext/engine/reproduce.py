"""Compare the accuracy of weights with the published one, and write a report."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from mindyolo_ext.atomic import write_json, write_text
from mindyolo_ext.checkpoint.metadata import CheckpointMetadata
from mindyolo_ext.checkpoint.names import Recognition
from mindyolo_ext.checkpoint.tables import table_of
from mindyolo_ext.contracts import EvaluationProtocol
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.engine.accuracy_speed import Tradeoff
from mindyolo_ext.engine.evaluate import EvalResult
from mindyolo_ext.errors import DataError, MissingFileError, UsageError, closest, shown
from mindyolo_ext.evaluation.coco_map import STAT_NAMES
from mindyolo_ext.models.registry import family_of, variant

FILES = ("reproduce.md", "reproduce.json")
TOLERANCE = 0.1  # percentage points: published numbers have one decimal
HARD_SHARES = range(0, 101, 10)  # of the rows of a ``Tradeoff``, in percent
_EASY = " % easy"
# Names of `own_metric` in a reference file -> names in ``EvalResult.values``
_OWN = {
    "AP": "own_AP50",
    "precision": "own_precision",
    "recall": "own_recall",
    "f1": "own_F1",
}
_METRICS = {**dict.fromkeys(_OWN.values(), "darknet"), "voc_AP50": "voc", "voc07_AP50": "voc"}
_KNOWN = (*STAT_NAMES, *_METRICS)
_ROUNDING = 1e-9  # the last bit of 25.7 + 0.1 must not put 25.8 out of tolerance


@dataclass(frozen=True)
class Goal:
    """The numbers that an evaluation should reproduce.

    Args:
        wanted: number by metric, in percent.
        origin: source of the numbers.
        settings: required settings, by key of the recipe.
        images: number of images that were evaluated; None if unknown.
        data: description of the images.
        remark: known difference of the source's evaluation.
    """

    wanted: Mapping[str, float]
    origin: str
    settings: Mapping[str, Any]
    images: int | None = None
    data: str = ""
    remark: str = ""

    def texts(self) -> list[str]:
        """``settings`` in the form of ``--set``."""
        return [f"{key}={json.dumps(value)}" for key, value in self.settings.items()]


# ---- what to compare with --------------------------------------------------------------------


def goal_of(metadata: CheckpointMetadata, reference: str | None, *, where: str | Path) -> Goal:
    """Find the numbers that the weights of a checkpoint should reproduce.

    Args:
        metadata: of the checkpoint.
        reference: a number in percent, or a file, see ``docs/parity.md``; None for the published
            number.
        where: the weights' file, for messages.

    Raises: UsageError if nothing is published for these weights, or ``reference`` is one number
        for a model with several; MissingFileError; DataError for a file in another format.
    """
    protocols = family_of(metadata.model).protocols
    reasons = [misfit(protocol, metadata) for protocol in protocols]
    fitting = [protocol for protocol, reason in zip(protocols, reasons) if not reason]
    if reference is None:
        if not fitting:
            raise _nothing_published(where, metadata.model, "; ".join(reasons))
        return _published_goal(fitting[0], metadata.model)
    nearest = (fitting or list(protocols) or [None])[0]
    settings = {} if nearest is None else nearest.settings
    number = _as_number(reference)
    if number is None:
        return _goal_of_file(reference, metadata, settings)
    names = ["AP"] if not fitting else list(fitting[0].numbers.values())
    if len(names) > 1:
        raise UsageError(
            f"--reference {shown(reference)}: {metadata.model} has several numbers "
            f"({', '.join(names)}); wanted a JSON file with them (docs/parity.md)"
        )
    return Goal({names[0]: number}, "--reference", settings)


def misfit(protocol: EvaluationProtocol, metadata: CheckpointMetadata) -> str:
    """Explain why published numbers do not belong to these weights; empty if they do."""
    published = variant(metadata.model).published
    if not set(protocol.numbers) <= set(published):
        return f"its authors publish no {next(iter(protocol.numbers))} of it"
    if protocol.input_style and protocol.input_style not in _styles(metadata):
        return f"{next(iter(protocol.numbers))} is of weights with input {protocol.input_style}"
    other = [
        f"{key} {value}, not {metadata.architecture.get(key)}"
        for key, value in protocol.architecture.items()
        if metadata.architecture.get(key) != value
    ]
    return f"{next(iter(protocol.numbers))} is of weights with {', '.join(other)}" if other else ""


def _styles(metadata: CheckpointMetadata) -> list[str]:
    """The input conventions of the family that match a checkpoint's input."""
    record = family_of(metadata.model)
    recognition = Recognition(metadata.model, metadata.num_classes, dict(metadata.architecture))
    styles = table_of(record.name).input_styles(recognition, metadata.input_spec)
    return [name for name, spec in styles.items() if spec == metadata.input_spec]


def _published_goal(protocol: EvaluationProtocol, model: str) -> Goal:
    """The published numbers of a protocol as a goal."""
    facts = variant(model).published
    return Goal(
        {name: facts[fact] for fact, name in protocol.numbers.items()},
        f"published: {family_of(model).repository}",
        protocol.settings,
        protocol.images,
        protocol.data,
        protocol.remark,
    )


def _nothing_published(where: str | Path, model: str, reasons: str) -> UsageError:
    """Create the error for weights without a published number."""
    return UsageError(
        f"{where}: no published number belongs to these weights of {model}"
        f"{f' ({reasons})' if reasons else ''}; give the number to reproduce with --reference "
        "NUMBER or FILE"
    )


def _as_number(text: str) -> float | None:
    """Parse ``--reference`` as a number; None for a file. Raises: UsageError outside 0..100."""
    try:
        number = float(text)
    except ValueError:
        return None
    if not 0 <= number <= 100:
        raise UsageError(f"--reference {shown(text)}: wanted a number in percent, 0 to 100")
    return number


def _goal_of_file(text: str, metadata: CheckpointMetadata, settings: Mapping[str, Any]) -> Goal:
    """Read a goal from a reference file, ``FILE`` or ``FILE:ENTRY``."""
    file, separator, entry = text.rpartition(":")
    if not separator or Path(text).is_file():
        file, entry = text, ""
    values = _read_json(Path(file))
    name = _chosen_entry(values, entry, metadata.model, file)
    where = f"{file}:{name}" if name else file
    found = values[name] if name else values
    wanted = _numbers_of(found, where)
    changes: dict[str, Any] = {}
    for key, setting in (("conf", "eval.conf_thres"), ("nms_iou", "eval.iou_thres")):
        if key in found:
            changes[setting] = _checked_number(found[key], f"{where}: {key}")
    if "input" in found:
        changes["input.size"] = found["input"]
    metrics = sorted({_METRICS[its] for its in wanted if its in _METRICS})
    if metrics:
        changes["eval.metrics"] = metrics
    images = found.get("images")
    if images is not None and not isinstance(images, int):
        raise DataError(f"{where}: images wanted a whole number, got {shown(images)}")
    data = str(found.get("dataset", values.get("dataset", "")))
    return Goal(wanted, f"reference {where}", {**settings, **changes}, images, data)


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds a mapping. Raises: MissingFileError, DataError."""
    if not path.is_file():
        raise MissingFileError(
            f"--reference {path}: neither an existing file nor a number in percent"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, ValueError) as error:
        raise DataError(f"--reference {path}: is not JSON ({error})") from error
    if not isinstance(values, dict):
        raise DataError(f"--reference {path}: wanted a mapping of numbers by name")
    return values


def _chosen_entry(values: Mapping[str, Any], entry: str, model: str, file: str) -> str:
    """Name of the entry to use, empty for the file itself."""
    entries = [name for name, value in values.items() if isinstance(value, dict) and name != "coco"]
    if entry:
        if entry not in entries:
            near = closest(entry, entries)
            hint = f"did you mean {near}?" if near else f"it has {', '.join(entries) or 'none'}"
            raise UsageError(f"--reference {file}: no entry {shown(entry)}; {hint}")
        return entry
    if "coco" in values or any(name.partition(",")[0] in _KNOWN for name in values):
        return ""
    own = [name for name in entries if name.startswith(model)]
    if len(own) != 1:
        raise UsageError(
            f"--reference {file}: wanted one entry whose name begins with {model}, got "
            f"{', '.join(own) or 'none'}; name one: {file}:ENTRY (it has "
            f"{', '.join(entries) or 'none'})"
        )
    return own[0]


def _numbers_of(entry: Mapping[str, Any], where: str) -> dict[str, float]:
    """Numbers by name in percent; the file holds fractions."""
    parts = [("", entry.get("coco", {})), ("own_metric", entry.get("own_metric", {}))]
    if not any(part for _, part in parts):
        parts = [("", {k: v for k, v in entry.items() if k.partition(",")[0] in _KNOWN})]
    found = {}
    for kind, part in parts:
        for name, value in part.items():
            known = _OWN.get(name, name) if kind else name
            if known.partition(",")[0] not in _KNOWN:
                raise DataError(
                    f"{where}: {shown(name)} is not one of the measured numbers: "
                    f"{', '.join(_KNOWN)}"
                )
            found[known] = 100 * _checked_number(value, f"{where}: {name}")
    if not found:
        raise DataError(
            f'{where}: holds no number; wanted for example {{"AP": 0.258}} or {{"coco": '
            '{"AP": 0.258}}'
        )
    return found


def _checked_number(value: Any, where: str) -> float:
    """``value`` in 0..1. Raises: DataError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise DataError(f"{where} wanted a number in 0..1, got {shown(value)}")
    return float(value)


def check_images(goal: Goal, dataset: Dataset) -> None:
    """Check that the goal is for the same number of images. Raises: DataError."""
    if goal.images is not None and goal.images != len(dataset):
        raise DataError(
            f"{dataset.name}: has {len(dataset)} images, but {', '.join(goal.wanted)} is for the "
            f"{goal.images} of {goal.data or 'the reference'}. Use all of them (--data_root), or "
            "give the number for these with --reference NUMBER or FILE"
        )


# ---- what was measured -----------------------------------------------------------------------


def numbers_of_evaluation(result: EvalResult) -> dict[str, float]:
    """All numbers of an evaluation, in percent."""
    return {name: 100 * value for name, value in result.values().items()}


def numbers_of_tradeoff(tradeoff: Tradeoff) -> dict[str, float]:
    """COCO's numbers by share of easy images: ``AP, 90 % easy``, in percent."""
    return {
        f"{name}, {100 - hard}{_EASY}": 100 * row[name]
        for hard, row in zip(HARD_SHARES, tradeoff.rows, strict=True)
        for name in STAT_NAMES
    }


def wants_shares(goal: Goal) -> bool:
    """Whether the numbers are those of a routed model at given shares of easy images."""
    return any(name.endswith(_EASY) for name in goal.wanted)


@dataclass(frozen=True)
class Line:
    """One number: wanted, measured, and whether they agree.

    Args:
        wanted, measured: in percent.
    """

    name: str
    wanted: float
    measured: float
    passed: bool

    @property
    def difference(self) -> float:
        """Measured minus wanted, in percentage points."""
        return self.measured - self.wanted


def compared(goal: Goal, measured: Mapping[str, float], tolerance: float) -> list[Line]:
    """Compare every number of the goal with the measured one.

    Raises: DataError for a number that this evaluation does not produce.
    """
    missing = [name for name in goal.wanted if name not in measured]
    if missing:
        raise DataError(
            f"{goal.origin}: needs {', '.join(missing)}, which this evaluation does not produce; "
            f"it produces {', '.join(measured)}"
        )
    lines = []
    for name, wanted in goal.wanted.items():
        gap = abs(measured[name] - wanted)
        lines.append(Line(name, wanted, measured[name], bool(gap <= tolerance + _ROUNDING)))
    return lines


@dataclass(frozen=True)
class Reproduction:
    """A comparison with everything needed to judge it.

    Args:
        model: registry name.
        goal: the numbers to reproduce.
        lines: the comparison.
        tolerance: percentage points.
        weights, data, settings, versions: facts by name, for the report.
        changed: settings in which ``--set`` departs from the protocol.
        numbers: all measured numbers, in percent.
        command: the command line.
        date: day of the measurement, UTC.
    """

    model: str
    goal: Goal
    lines: Sequence[Line]
    tolerance: float
    weights: Mapping[str, str]
    data: Mapping[str, str]
    settings: Mapping[str, str]
    versions: Mapping[str, str]
    command: str
    date: str
    changed: Sequence[str] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every number agrees."""
        return all(line.passed for line in self.lines)

    def verdict(self) -> str:
        """``PASS``, or the differences, in one line."""
        if self.passed:
            first = self.lines[0]
            return (
                f"PASS: {self.model}: {first.name} {first.measured:.2f} %, wanted "
                f"{first.wanted:.2f} %; {len(self.lines)} number(s) within {self.tolerance:g} "
                "points"
            )
        gaps = [
            f"{line.name} {line.measured:.2f} %, wanted {line.wanted:.2f} % "
            f"({line.difference:+.2f})"
            for line in self.lines
            if not line.passed
        ]
        return f"{self.model}: beyond {self.tolerance:g} points: {'; '.join(gaps)}"

    def table(self) -> str:
        """One row per number of the goal."""
        return tabulate(self._rows(), _COLUMNS, disable_numparse=True, colalign=_ALIGN)

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                line.name,
                f"{line.wanted:.2f}",
                f"{line.measured:.2f}",
                f"{line.difference:+.2f}",
                "yes" if line.passed else "NO",
            )
            for line in self.lines
        ]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON; a number that does not exist is None."""
        numbers = {k: v if np.isfinite(v) else None for k, v in self.numbers.items()}
        return {**asdict(self), "passed": self.passed, "numbers": numbers}

    def markdown(self) -> str:
        """The report in Markdown, to attach to an issue."""
        title = variant(self.model).title
        parts = [
            f"# {title}: {'reproduced' if self.passed else 'NOT reproduced'}",
            self.verdict() + f". Measured on {self.date}.",
            tabulate(self._rows(), _COLUMNS, tablefmt="github", disable_numparse=True),
            f"Wanted: {self.goal.origin}" + (f", {self.goal.data}" if self.goal.data else "") + ".",
        ]
        if self.goal.remark:
            parts.append(f"May affect the last digit: {self.goal.remark}.")
        if self.changed:
            parts.append(f"**Departs from the protocol** in: {', '.join(self.changed)} (`--set`).")
        parts.append(f"```\n{self.command}\n```")
        for head, facts in (
            ("Weights", self.weights),
            ("Data", self.data),
            ("Protocol in force", self.settings),
            ("Everything measured, %", {k: f"{v:.3f}" for k, v in self.numbers.items()}),
            ("Versions", self.versions),
        ):
            rows = [(name, str(value).replace("|", "\\|")) for name, value in facts.items()]
            parts.append(f"## {head}")
            parts.append(tabulate(rows, ("", ""), tablefmt="github", disable_numparse=True))
        return "\n\n".join(parts) + "\n"


_COLUMNS = ("number", "wanted, %", "measured, %", "difference", "agrees")
_ALIGN = ("left", "right", "right", "right", "left")


def facts_of_data(dataset: Dataset, root: str) -> dict[str, str]:
    """Facts about the evaluated data: counts, and where its labels come from."""
    counts = dataset.class_counts()
    ignored = sum(int(dataset.annotations(i).ignore.sum()) for i in range(len(dataset)))
    facts = {
        "root": Path(root).resolve().name,
        "images": f"{len(dataset)}",
        "boxes that count": f"{int(counts.sum())}",
        "boxes that are ignored (crowds, difficult)": f"{ignored}",
        "classes": f"{len(dataset.class_names)}, {int((counts > 0).sum())} of them with boxes",
    }
    file = getattr(dataset, "annotation_file", None)
    if file is not None:
        facts["annotations"] = Path(file).name
        facts["SHA-256 of the annotations"] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return facts


def save_report(folder: Path, found: Reproduction) -> list[Path]:
    """Write the report as Markdown and as JSON. Raises: WriteError if writing fails."""
    paths = [folder / name for name in FILES]
    write_text(paths[0], found.markdown())
    write_json(paths[1], found.to_json(), indent=1)
    return paths

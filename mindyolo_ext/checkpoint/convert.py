"""Convert an original's checkpoint to ours and back, with a report of every tensor."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from mindyolo_ext.atomic import write_text
from mindyolo_ext.checkpoint.names import (
    COUNTER,
    Mapped,
    NamesTable,
    Recognition,
    map_tensors,
    source_names,
    to_source_tensors,
    weights_only,
)
from mindyolo_ext.checkpoint.outline import Outline, outline
from mindyolo_ext.checkpoint.reader import ForeignCheckpoint, file_sha256, read_checkpoint
from mindyolo_ext.checkpoint.store import (
    CheckpointMetadata,
    check_suffix,
    load_checkpoint,
    save_checkpoint,
)
from mindyolo_ext.checkpoint.tables import is_known, recognize, table_of
from mindyolo_ext.checkpoint.torch_writer import write_torch_checkpoint
from mindyolo_ext.checkpoint.wrappers import unwrapped
from mindyolo_ext.class_names import KNOWN_NAMES, default_names
from mindyolo_ext.data.formats.darknet import DataFile, parse_data_file
from mindyolo_ext.data.text import read_names
from mindyolo_ext.errors import CheckpointError, ExistingFileError, UsageError, printable
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.registry import family_of

_TORCH_SUFFIXES = (".pt", ".pth")
ASSUMED = "assumed"  # key in a checkpoint's ``extra``: assumptions about its source


@dataclass
class ConversionReport:
    """Report of a conversion: what happened to every tensor.

    Args:
        source, target: the files; ``source_sha256``, ``target_sha256``: their checksums.
        source_format: see ``ForeignCheckpoint``; ``entry`` and ``used_ema``: which weights were
            taken.
        model, num_classes, class_names_from: registry name, number of classes, and the source of
            the class names.
        part: ``backbone`` for a file that holds only a backbone, else empty.
        input: the input convention that was written into the checkpoint, and how it was determined.
        mapped: source name -> target name; ``ignored``: source name -> reason; ``supplied``: target
            name -> why the file has no tensor for it; ``unfilled``: target names that a part of a
            model does not contain.
        numbers: how many numbers were copied.
        warnings: facts to check.
        prefix: the prefix that a wrapper had added to every name, and that was removed.
    """

    source: str
    target: str
    source_sha256: str
    target_sha256: str
    source_format: str
    entry: str
    used_ema: bool
    model: str
    num_classes: int
    class_names_from: str
    part: str = ""
    input: str = ""
    mapped: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    unfilled: list[str] = field(default_factory=list)
    numbers: int = 0
    warnings: list[str] = field(default_factory=list)
    supplied: dict[str, str] = field(default_factory=dict)
    prefix: str = ""

    def to_json(self) -> str:
        """Format the report as JSON, one key per line."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)

    def table(self) -> str:
        """Format the report as a short table."""
        rows = [
            (
                "from",
                f"{self.source} ({self.source_format}"
                + (f", entry {self.entry}" if self.entry else "")
                + (", moving average" if self.used_ema else "")
                + ")",
            ),
            ("to", self.target),
            (
                "model",
                f"{self.model}, {self.part} only"
                if self.part
                else f"{self.model}, {self.num_classes} classes (names from "
                f"{self.class_names_from})",
            ),
        ]
        if self.prefix:
            rows.append(("names", f"prefix {self.prefix} removed"))
        if self.input:
            rows.append(("input", self.input))
        rows += [
            (
                "tensors",
                f"{len(self.mapped)} converted ({self.numbers:,} numbers), {len(self.ignored)} "
                "ignored"
                + (f", {len(self.unfilled)} of the model not in the file" if self.unfilled else ""),
            )
        ]
        for what, reasons in (
            ("ignored", list(self.ignored.values())),
            ("supplied", list(self.supplied.values())),
        ):
            rows += [
                (what, f"{reasons.count(reason)} x {reason}") for reason in dict.fromkeys(reasons)
            ]
        rows += [("sha256 from", self.source_sha256), ("sha256 to", self.target_sha256)]
        rows += [("warning", text) for text in self.warnings]
        shown = [tuple(map(printable, row)) for row in rows]
        return tabulate(shown, tablefmt="plain", disable_numparse=True)


def convert(
    source: str | Path,
    target: str | Path,
    *,
    model: str | None = None,
    report: str | Path | None = None,
    anchors: Sequence[float] | None = None,
    data: str | Path | None = None,
    names: str | Path | None = None,
    prefer_ema: bool = True,
    entry: str | None = None,
    input_style: str | None = None,
    model_keywords: Mapping[str, object] | None = None,
    half: bool = False,
) -> ConversionReport:
    """Convert an original's checkpoint to ours, or one of ours back to a PyTorch file with the
    original's names, which ``export_torch`` does with more options.

    Args:
        source: any file ``read_checkpoint`` reads; for one of our own only the format changes.
        target: ``.ckpt`` or ``.safetensors`` to write; ``.pth`` or ``.pt`` for the way back, which
            takes only ``report``.
        model: registry name; by default it is recognized from the tensors' names and shapes.
        report: write the report there as JSON.
        anchors: width, height, width, height ... in pixels, for families whose checkpoints do not
            contain them.
        data: darknet ``.data`` file with anchors, class names and input size.
        names: file of class names, one per line.
        prefer_ema: take averaged weights if the file has both.
        entry: take exactly this top-level entry of the file.
        input_style: the input convention the weights were trained with
            (``NamesTable.input_styles``); by default it is inferred from names and weights, or the
            family's usual one.
        model_keywords: keywords for the model's builder that the weights do not determine; they
            override what was recognized.
        half: store weights of two or more axes in float16; networks compute with them in float32.

    Raises: FileNotFoundError; CheckpointError if the file is damaged, of an unknown family, or does
        not fit the model or float16, and for an input style that the family does not have;
        ValueError for ``model_keywords`` that the builder does not accept; ExistingFileError if the
        target or the report would overwrite a file that is read.
    """
    if Path(target).suffix in _TORCH_SUFFIXES:
        given = {
            "--model": model,
            "--data": data,
            "--anchors": anchors,
            "--names": names,
            "--input": input_style,
            "--model_keyword": model_keywords,
            "--entry": entry,
            "--no_ema": not prefer_ema,
            "--half": half,
        }
        _refuse_unused(target, [name for name, value in given.items() if value])
        return export_torch(source, target, report=report)
    check_suffix(Path(target))
    _keep_sources({"target": target, "--report": report}, [source, data, names])
    foreign = read_checkpoint(source, prefer_ema=prefer_ema, entry=entry)
    if foreign.own is not None:
        return _reported(_in_other_format(Path(source), Path(target), half=half), report)
    settings = parse_data_file(data) if data is not None else DataFile()
    plan = plan_conversion(
        foreign,
        model=model,
        anchors=anchors if anchors is not None else settings.anchors,
        size=(settings.height, settings.width),
        prefer_ema=prefer_ema,
        input_style=input_style,
        model_keywords=model_keywords,
    )
    class_names, origin = _class_names(foreign, plan.built.num_classes, settings, data, names)
    values = in_half(plan.mapped.values) if half else plan.mapped.values
    save_checkpoint(target, values, _metadata(foreign, plan, class_names))
    result = ConversionReport(
        str(source),
        str(target),
        foreign.sha256,
        file_sha256(target),
        foreign.source_format,
        foreign.entry,
        plan.used_ema,
        plan.found.model,
        plan.built.num_classes,
        origin,
        plan.found.part,
        plan.input.text,
        plan.mapped.sources,
        plan.mapped.ignored,
        plan.mapped.unfilled,
        sum(plan.mapped.values[name].size for name in plan.mapped.sources.values()),
        plan.warnings,
        plan.mapped.supplied,
        plan.prefix,
    )
    return _reported(result, report)


@dataclass
class Plan:
    """What a conversion will write.

    Args:
        found: the model that was recognized.
        built: the outline of that model.
        mapped: tensors under our names.
        input: the input convention.
        used_ema: whether the weights are averaged.
        prefix: the prefix that was removed from every name.
        remarks: assumptions about facts that the file does not state.
        warnings: the remarks and other facts to check.
    """

    found: Recognition
    built: Outline
    mapped: Mapped
    input: "_Input"
    used_ema: bool
    prefix: str
    remarks: list[str]
    warnings: list[str]


def plan_conversion(
    foreign: ForeignCheckpoint,
    *,
    model: str | None = None,
    anchors: Sequence[float] | None = None,
    size: tuple[int | None, int | None] = (None, None),
    prefer_ema: bool = True,
    input_style: str | None = None,
    model_keywords: Mapping[str, object] | None = None,
) -> Plan:
    """Do everything that ``convert`` does except writing.

    Args:
        foreign: the file, not one of ours.
        size: height and width of the input, None if unknown.
        model, anchors, prefer_ema, input_style, model_keywords: as in ``convert``.

    Raises: as ``convert``.
    """
    where = str(foreign.path)
    inside = unwrapped(weights_only(foreign.tensors), is_known, where=where, prefer_ema=prefer_ema)
    tensors = inside.tensors
    table, found = recognize(tensors, where=where, model=model)
    given = {
        **table.builder_keywords(tensors, tuple(anchors) if anchors is not None else None),
        **(model_keywords or {}),
    }
    try:
        built = _outline(found, given)
    except TypeError as error:
        if not model_keywords:
            raise
        raise CheckpointError(
            f"{found.model}: a keyword among {', '.join(model_keywords)} does not fit ({error})"
        ) from error
    fitting = table.sliced(tensors, found, {**found.keywords, **given})
    mapped = map_tensors(
        table, found, fitting, built.parameters, where=where, epsilons=built.epsilons
    )
    mapped.ignored.update(
        dict.fromkeys(inside.left_out, f"is outside {inside.prefix}, which holds the network")
    )
    usual = built.input_spec.size
    spec = replace(built.input_spec, size=(size[0] or usual[0], size[1] or usual[1]))
    choice = _choose_input(table, found, tensors, spec, input_style)
    remarks = table.remarks(found, given, size_given=None not in size)
    return Plan(
        found,
        built,
        mapped,
        choice,
        foreign.used_ema or inside.is_average,
        inside.prefix,
        remarks,
        foreign.warnings + mapped.warnings + choice.warnings + remarks,
    )


def _metadata(foreign: ForeignCheckpoint, plan: Plan, class_names: list[str]) -> CheckpointMetadata:
    """Build the metadata of the converted checkpoint."""
    return CheckpointMetadata(
        model=plan.found.model,
        num_classes=plan.built.num_classes,
        class_names=class_names,
        input_spec=plan.input.spec,
        architecture=dict(plan.built.architecture),
        epoch=foreign.epoch,
        source={
            "file": foreign.path.name,
            "sha256": foreign.sha256,
            "format": foreign.source_format,
            "entry": foreign.entry,
            "ema": plan.used_ema,
        },
        extra=_extra(plan),
    )


def export_torch(
    source: str | Path,
    target: str | Path,
    *,
    report: str | Path | None = None,
    wrap: str | None = None,
    half: bool = False,
) -> ConversionReport:
    """Write one of our checkpoints as a PyTorch file with the original's names, which its strict
    loader accepts.

    Args:
        source: our ``.ckpt`` or ``.safetensors``.
        target: ``.pth`` or ``.pt`` file to write.
        report: write the report there as JSON.
        wrap: put the state dict under this entry. None: the family's usual entry, or none for a
            part of a model. Empty: no entry.
        half: store the weights in half precision.

    Raises: FileNotFoundError; CheckpointError for a damaged file or one of another program;
        ExistingFileError if the target or the report is the source.
    """
    _keep_sources({"target": target, "--report": report}, [source])
    parameters, metadata = load_checkpoint(source)
    weights = weights_only(parameters)
    table = table_of(_family_name(metadata.model, where=str(source)))
    try:
        tensors = to_source_tensors(
            table,
            weights,
            metadata.extra.get(COUNTER),
            model=metadata.model,
            architecture=metadata.architecture,
        )
    except (TypeError, KeyError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{source}: its metadata describes no network ({metadata.model}: {error})"
        ) from error
    part = metadata.extra.get("part") or {}
    prefix = part.get("prefix", "")
    tensors = {name.removeprefix(prefix): array for name, array in tensors.items()}
    named = source_names(table, weights, metadata.model)
    sources = {name: source.removeprefix(prefix) for name, source in named.items()}
    added = [name for name in tensors.keys() - set(sources.values()) if not name.endswith(COUNTER)]
    if wrap is None:
        wrap = "" if part else table.entry
    write_torch_checkpoint(
        target, tensors, wrap=wrap, beside=table.beside if wrap else {}, half=half
    )
    result = ConversionReport(
        str(source),
        str(target),
        file_sha256(source),
        file_sha256(target),
        "mindspore",
        "",
        False,
        metadata.model,
        metadata.num_classes,
        "the checkpoint",
        part.get("name", ""),
        "",
        sources,
        {name: "state of the training, not a weight" for name in parameters if name not in weights},
        [],
        sum(array.size for array in weights.values()),
        ["half precision: numbers were rounded"] if half else [],
        dict.fromkeys(sorted(added), "a constant of the architecture"),
    )
    return _reported(result, report)


def _refuse_unused(target: str | Path, unused: Sequence[str]) -> None:
    """Raises: UsageError for options that do not apply to the conversion back to PyTorch."""
    if unused:
        raise UsageError(
            f"{target}: the conversion of a mindyolo_ext checkpoint to PyTorch does not take "
            f"{', '.join(unused)}; for the other direction use a target that ends in .ckpt"
        )


def in_half(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Convert weights of two or more axes to float16 and keep everything else: statistics and
    biases are small, and some are too large or too close to 0 for float16.

    Raises: CheckpointError for a weight that float16 cannot hold.
    """
    most, found = np.finfo(np.float16).max, {}
    for name, array in values.items():
        if array.dtype != np.float32 or array.ndim < 2:
            found[name] = array
            continue
        if not np.abs(array).max(initial=0) <= most:
            raise CheckpointError(
                f"--half: {name} holds numbers beyond {most:g}, which float16 cannot; leave it out"
            )
        found[name] = array.astype(np.float16)
    return found


def _in_other_format(source: Path, target: Path, *, half: bool) -> ConversionReport:
    """Write one of our checkpoints, with all its content, in our other format, or in float16.

    Raises: CheckpointError if both files have the same format and precision.
    """
    if source.suffix == target.suffix and not half:
        raise CheckpointError(
            f"{source}: already a mindyolo_ext checkpoint, wanted one of another program, or "
            "a target with another suffix"
        )
    parameters, metadata = load_checkpoint(source)
    save_checkpoint(target, in_half(parameters) if half else parameters, metadata)
    return ConversionReport(
        str(source),
        str(target),
        file_sha256(source),
        file_sha256(target),
        "mindyolo_ext",
        "",
        False,
        metadata.model,
        metadata.num_classes,
        "the checkpoint",
        (metadata.extra.get("part") or {}).get("name", ""),
        mapped={name: name for name in parameters},
        numbers=sum(array.size for array in parameters.values()),
    )


def _reported(result: ConversionReport, path: str | Path | None) -> ConversionReport:
    """Write ``result`` to ``path`` if one is given, and return it."""
    if path is not None:
        write_text(Path(path), result.to_json() + "\n")
    return result


def _outline(found: Recognition, given: Mapping[str, object]) -> Outline:
    """Build the outline of the recognized model, with recognized and given keywords."""
    classes = {} if found.num_classes is None else {"num_classes": found.num_classes}
    return outline(found.model, {**classes, **found.keywords, **given})


def _family_name(model: str, *, where: str) -> str:
    """Return the family of a model. Raises: CheckpointError if this package has no such model."""
    try:
        return family_of(model).name
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from error


def _extra(plan: Plan) -> dict[str, Any]:
    """Collect what the reverse conversion needs (batch counters, and which part of a model the file
    holds), and the assumptions.
    """
    seen = plan.mapped.counters
    counters: dict[str, Any] | int = seen
    if len(set(seen.values())) == 1:
        counters = next(iter(seen.values()))
    extra: dict[str, Any] = {COUNTER: counters} if seen else {}
    if plan.found.part:
        extra["part"] = {"name": plan.found.part, "prefix": plan.found.prefix}
    if plan.remarks:
        extra[ASSUMED] = plan.remarks
    return extra


def _keep_sources(
    written: Mapping[str, str | Path | None], read: Sequence[str | Path | None]
) -> None:
    """Check that no output file is an input file or another output file, even through links or
    another spelling. Raises: ExistingFileError.
    """
    sources = [Path(path) for path in read if path is not None]
    before: dict[Path, str] = {}
    for what, name in written.items():
        if name is None:
            continue
        path = Path(name)
        for source in sources:
            if _is_same_file(path, source):
                raise ExistingFileError(
                    f"{path}: would overwrite {source}, which is read; choose another {what}"
                )
        place = path.resolve()
        if place in before:
            raise ExistingFileError(f"{path}: is both {before[place]} and {what}; use two files")
        before[place] = what


def _is_same_file(path: Path, other: Path) -> bool:
    """Whether both names refer to the same file."""
    try:
        return path.samefile(other)
    except OSError:  # one of them does not exist
        return path.resolve() == other.resolve()


@dataclass
class _Input:
    """Input convention of converted weights: ``spec``, and ``text`` that describes it (empty if the
    family has only one).
    """

    spec: InputSpec
    text: str = ""
    warnings: list[str] = field(default_factory=list)


def _choose_input(
    table: NamesTable,
    found: Recognition,
    tensors: Mapping[str, np.ndarray],
    usual: InputSpec,
    wanted: str | None,
) -> _Input:
    """Choose the input that the user asked for, else the one the weights indicate, else the
    family's usual one.

    Raises: CheckpointError if the family has no style ``wanted``.
    """
    styles = table.input_styles(found, usual)
    if wanted is not None and wanted not in styles:
        raise CheckpointError(
            f"{found.model}: has no input style {wanted!r}, "
            + (f"wanted one of {', '.join(styles)}" if styles else "its input is always the same")
        )
    if not styles:
        return _Input(usual)
    evidence = table.input_evidence(found, tensors)
    style, reason = (wanted, "--input") if wanted else (evidence.style, evidence.reason)
    warnings = []
    if not style:
        style, reason = next(iter(styles)), "default"
        warnings.append(
            f"the input that the weights were trained with is unknown ({evidence.reason}); assumed "
            f"{style}, select another one with --input ({', '.join(styles)})"
        )
    elif evidence.style not in ("", style):
        warnings.append(
            f"--input {style} contradicts the weights, which indicate {evidence.style} "
            f"({evidence.reason})"
        )
    return _Input(styles[style], f"{style}: {_in_words(styles[style])} ({reason})", warnings)


def _in_words(spec: InputSpec) -> str:
    """Describe an input in a few words: ``BGR 0..255, letterbox topleft, 640x640``."""
    top = 255 * spec.scale
    values = f"0..{top:g}" + (
        ", mean and deviation" if any(spec.mean) or set(spec.std) != {1.0} else ""
    )
    place = f" {spec.pad_anchor}" if spec.resize == "letterbox" else ""
    short = f", photos of {max(spec.size) - spec.border}" if spec.border else ""
    return (
        f"{spec.color.upper()} {values}, {spec.resize}{place}, {spec.size[0]}x{spec.size[1]}{short}"
    )


def _class_names(
    foreign: ForeignCheckpoint,
    num_classes: int,
    settings: DataFile,
    data: str | Path | None,
    names: str | Path | None,
) -> tuple[list[str], str]:
    """Return class names and their source: the names file, the ``.data`` file, the checkpoint, COCO
    or VOC, or numbers.

    Raises: CheckpointError if a named file has another number of classes than the head.
    """
    if settings.classes is not None and settings.classes != num_classes:
        raise CheckpointError(
            f"{data}: classes is {settings.classes}, the head of {foreign.path} has {num_classes}"
        )
    if names is not None:
        found, origin = read_names(names, "."), str(names)
    elif settings.names is not None:
        folder = Path(str(data)).parent  # the settings were read from it
        found = read_names(settings.names, folder, folder.parent)
        origin = f"{data}: {settings.names}"
    elif foreign.class_names is not None:
        found, origin = foreign.class_names, str(foreign.path)
    else:
        return default_names(num_classes), KNOWN_NAMES.get(num_classes, ("numbering",))[0]
    if len(found) != num_classes:
        raise CheckpointError(
            f"{origin}: {len(found)} class names, the head of {foreign.path} has "
            f"{num_classes} classes"
        )
    return found, origin

"""Call a reader and judge whether it kept its promises."""

import time
import traceback
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mindyolo_ext.errors import UserError

from .formats.pickles import CANARY
from .readers import Reading
from .watch import Watch

MAX_SECONDS = 2.0  # of processor time, so that a busy machine changes no verdict
MAX_BYTES = 500 << 20  # above what the process holds at rest
MAX_MESSAGE = 10_000  # characters
ACCEPTED, REFUSED, UNCLEAR = "accepted", "refused", "unclear message"
OTHER, FOREIGN = "other exception", "foreign code"
SLOW, FAT = f"slower than {MAX_SECONDS:g} s", f"above {MAX_BYTES >> 20} MB"
FORBIDDEN = (UNCLEAR, OTHER, SLOW, FAT, FOREIGN)  # the last is the worst


@dataclass
class Verdict:
    """What happened to a mutant.

    Args:
        verdict: ``accepted`` or ``refused``, as the first reading says, or the worst of
            ``FORBIDDEN`` of any reading.
        seconds: processor time of the longest reading.
        bytes: growth of memory, of all readings.
        place: for a forbidden one, where it happened: exception and file:line.
        text: its message, cut.
    """

    verdict: str
    seconds: float = 0.0
    bytes: int = 0
    place: str = ""
    text: str = ""


def judged(call: Reading, folder: Path, watch: Watch) -> Verdict:
    """The verdict on one reading, without its memory."""
    start = time.process_time()
    watch.foreign.clear()
    watch.logged.clear()
    watch.inside, watch.on = str(folder), True
    try:
        shown = call()
        result = Verdict(ACCEPTED)
    except UserError as error:
        shown, result = [], _refused(error, folder)
    except Exception as error:
        kind = FAT if isinstance(error, MemoryError) else OTHER
        shown, result = [], Verdict(kind, place=_place(error), text=_text(error))
    finally:
        watch.on = False
    if result.verdict in (ACCEPTED, REFUSED):
        unfit = next((text for text in (*shown, *watch.logged) if _control(text)), None)
        if unfit is not None:
            result = Verdict(UNCLEAR, place=f"shows {_control(unfit)}", text=repr(unfit[-300:]))
    if watch.foreign:
        result = Verdict(FOREIGN, place=watch.foreign[0], text=repr(watch.foreign)[:300])
    result.seconds = time.process_time() - start
    return result


def _refused(error: UserError, folder: Path) -> Verdict:
    """The verdict on a refusal: whether its message is useful, and whether lack of memory ended the
    reading.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or "OutOfMemory" in str(cause):
            return Verdict(FAT, place=_place(cause), text=_text(error))
        cause = cause.__cause__ or cause.__context__
    message = str(error)
    problem = _control(message)
    if not any(name in message for name in (str(folder), *_names(folder))):
        problem = "no file named"
    elif len(message) > MAX_MESSAGE:
        problem = f"{len(message) // 1000} thousand characters"
    if problem:
        return Verdict(UNCLEAR, place=f"{problem}: {_place(error)}", text=repr(message)[:300])
    return Verdict(REFUSED)


def _text(error: BaseException) -> str:
    try:
        return repr(error)[:300]
    except MemoryError:
        return "(too long)"


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def _control(text: str) -> str:
    """The first character of ``text`` that could control a terminal or is not printable."""
    for sign in text:
        if sign not in "\n\t" and unicodedata.category(sign) in ("Cc", "Cf", "Cs"):
            return f"U+{ord(sign):04X}"
    return ""


def _place(error: BaseException) -> str:
    """Exception and file:line: our innermost line, and the innermost line of all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "mindyolo_ext" in frame.filename] or frames[-1:]
    lines = dict.fromkeys(f"{_short(f.filename)}:{f.lineno}" for f in (*ours[-1:], *frames[-1:]))
    return f"{type(error).__name__} {' in '.join(lines)}"


def _short(file: str) -> str:
    parts = Path(file).parts
    start = max(
        (i for i, part in enumerate(parts) if part == "mindyolo_ext"), default=len(parts) - 2
    )
    return "/".join(parts[start:])


def worst(verdicts: list[Verdict]) -> Verdict:
    """The worst forbidden verdict of several readings, or the verdict of the first."""
    found = [one for one in verdicts if one.verdict in FORBIDDEN]
    if not found:
        return verdicts[0]
    return max(found, key=lambda one: FORBIDDEN.index(one.verdict))


def peak() -> int:
    """The most memory that this process ever used, in bytes.

    Not ``ru_maxrss``, which a process on Linux inherits from the one that started it.
    """
    return _status("VmHWM")


def mapped() -> int:
    """The address space of this process, in bytes."""
    return _status("VmSize")


def measured(calls: Sequence[Reading], folder: Path, watch: Watch, at_rest: int) -> Verdict:
    """The verdict on all readings of a mutant; ``at_rest`` are the bytes held before the first."""
    before = peak()
    verdicts = [judged(call, folder, watch) for call in calls]
    result = worst(verdicts)
    result.seconds = max(one.seconds for one in verdicts)
    # a peak that did not move was reached by an earlier mutant, which was within the limit
    result.bytes = peak() - at_rest if peak() > before else 0
    if Path(CANARY).exists():
        Path(CANARY).unlink()
        result = replace(result, verdict=FOREIGN, place="a file was made")
    elif result.verdict in (ACCEPTED, REFUSED, UNCLEAR):
        if result.bytes > MAX_BYTES:
            result = replace(result, verdict=FAT, place=f"{folder.name}: {result.bytes >> 20} MB")
        elif result.seconds > MAX_SECONDS:
            result = replace(result, verdict=SLOW, place=f"{result.seconds:.1f} s")
    return result


def _status(key: str) -> int:
    """A line of the kernel's report on this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(lines.partition(f"{key}:")[2].split()[0])

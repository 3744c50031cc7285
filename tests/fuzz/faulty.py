"""A worker whose readers misbehave, each in its own way, to check that every fault is noticed."""

import logging
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from mindyolo_ext.errors import DataError, UserError

from . import verdict, worker
from .formats.pickles import CANARY
from .readers import Reading
from .verdict import FAT, FOREIGN, OTHER, SLOW, UNCLEAR


def _raises(error: Exception) -> None:
    raise error


def _swallows_memory_error() -> None:
    try:
        np.ones(1 << 40)
    except MemoryError as error:
        raise DataError("recipe.yaml: wanted less") from error


def _works(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


# format -> (what its reader does, what is noticed)
FAULTS: dict[str, tuple[Callable[[], object], str]] = {
    "zip": (lambda: pickle.loads(b"cos\nsystem\n(X\x04\0\0\0truetR."), FOREIGN),
    "pickle": (lambda: pickle.loads(f"c{CANARY}\nSong\n)\x81.".encode("latin-1")), FOREIGN),
    "stream": (lambda: exec("1 + 1", {}), FOREIGN),
    "tar": (lambda: Path("elsewhere").write_text("x", encoding="utf-8"), FOREIGN),
    "yolo": (lambda: _works(60), SLOW),
    "safetensors": (lambda: os.abort(), OTHER),
    "ckpt": (lambda: time.sleep(60), SLOW),
    "coco": (lambda: _raises(KeyError("id")), OTHER),
    "names": (lambda: _raises(UserError("wanted another file")), UNCLEAR),
    "darknet": (lambda: _raises(UserError("my.data: got " + "x" * 20_000)), UNCLEAR),
    "voc": (lambda: logging.getLogger("x").warning("got \u202e"), UNCLEAR),
    "recipe": (_swallows_memory_error, FAT),
    "image": (lambda: np.ones(100 << 20, np.uint8).sum(), FAT),
    "mindir": (lambda: _works(0.5), SLOW),
}


def readings(name: str, _: Path) -> Iterable[Reading]:
    """One call that misbehaves; the first reading of every mutant does not."""

    def call() -> list[str]:
        FAULTS[name][0]()
        return []

    return [lambda: [], call]


if __name__ == "__main__":
    verdict.MAX_SECONDS, verdict.MAX_BYTES = 0.3, 60 << 20
    worker.NO_END_SECONDS, worker.MAX_WAIT_SECONDS = 1.0, 4.0
    worker.main(Path(sys.argv[1]), readings)

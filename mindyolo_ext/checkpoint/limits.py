"""Limits on the files that are read: every limit of this package in one place, with its reason.

A file beyond a limit is refused within two seconds and 500 MB of memory. Files from training
programs stay far below the limits: the largest known checkpoint of the families here (network,
moving average and optimizer, pickled as objects) takes about 400,000 steps and has 5,000 tensors.
"""

from mindyolo_ext.errors import CheckpointError, shown

MAX_FILE_BYTES = 4 << 30  # a file, and all numbers read out of it, in memory
MAX_GROWTH = 8  # bytes of numbers per byte of the file; half precision and ties need 2 or 3
FREE_BYTES = 64 << 20  # of numbers, however small the file is

MAX_PICKLE_BYTES = 64 << 20  # the description of the weights, without the numbers themselves
MAX_STEPS = 2_000_000  # opcodes of all pickles of a file, weighted by the memory they take
SET_STEPS = 4  # for a new set, which takes as much memory as four other containers
RECORD_STEPS = 8  # for an object of an unknown class, or a tensor
MAX_COPIED_ITEMS = 2_000_000  # of containers built from other containers
MAX_COPIED_BYTES = 128 << 20  # of texts turned into bytes, and bytes into arrays
MAX_TEXT_BYTES = 16 << 20  # one string in a pickle, text or bytes
MAX_NAME_CHARACTERS = 1000  # of a tensor, class, entry or storage
MAX_INTEGER_BITS = 128  # values: random generators and UUIDs have 128
MAX_SIZE = (1 << 63) - 1  # counts and sizes: axes, strides, offsets
MAX_AXES = 32  # NumPy's own limit until version 2
REPEATED_ELEMENTS = 1 << 20  # of a tensor that repeats its numbers, such as a mask
MAX_KEY_PARTS = 16  # of a tuple that is a key; hashing long ones repeatedly is slow

MAX_DEPTH = 100  # nesting of containers or modules
MAX_NODES = 200_000  # parts of the entry that holds the weights
MAX_TENSORS = 20_000  # of any file
MAX_EXTRAS = 20_000  # values besides the weights that are kept

MAX_ZIP_ENTRIES = 1 << 16  # one per storage
MAX_ZIP_DIRECTORY_BYTES = 8 << 20  # a directory of that many entries with names of 80 letters
MAX_ZIP_RATIO = 200  # unpacked bytes of an entry per packed byte, beyond the first megabyte
MAX_TAR_PARTS = 10_000  # a checkpoint of 2016 has four

MAX_HEADER_BYTES = 4 << 20  # JSON of a safetensors file; a thousand tensors need 0.1 MB
MAX_METADATA_BYTES = 4 << 20  # JSON that one of our checkpoints carries
MAX_METADATA_DEPTH = 50  # containers inside each other
MAX_SIDE = 1 << 14  # pixels of a network's input
MAX_EPOCH = 1 << 31  # epoch counters have 32 bits
MAX_EXPORTED_FIELDS = 500_000  # read from an ONNX or MindIR file; a network has some thousands
MAX_ARCHITECTURE_VALUES = 1000  # numbers and texts among the builder's keywords


class Budget:
    """The cost of reading one file so far, shared by all its parts.

    Args:
        where: file, for messages.
    """

    def __init__(self, where: str):
        self.where = where
        self.steps = 0
        self.items = 0
        self.copied = 0

    def take_steps(self, count: int) -> None:
        """Count opcodes. Raises: CheckpointError beyond ``MAX_STEPS``."""
        self.steps += count
        if self.steps > MAX_STEPS:
            raise CheckpointError(
                f"{self.where}: takes more than {MAX_STEPS:,} steps to describe what it holds, "
                "which no checkpoint of weights does"
            )

    def copy_items(self, count: int) -> None:
        """Count items of containers that are copied. Raises: CheckpointError beyond
        ``MAX_COPIED_ITEMS``.
        """
        self.items += count
        if self.items > MAX_COPIED_ITEMS:
            raise CheckpointError(
                f"{self.where}: the pickle copies more than {MAX_COPIED_ITEMS:,} items, which no "
                "checkpoint of weights does"
            )

    def copy_bytes(self, count: int) -> None:
        """Count bytes that are copied. Raises: CheckpointError beyond ``MAX_COPIED_BYTES``."""
        self.copied += count
        if self.copied > MAX_COPIED_BYTES:
            raise CheckpointError(
                f"{self.where}: the pickle copies more than {MAX_COPIED_BYTES:,} bytes, wanted the "
                "numbers of tensors outside of it, as torch.save writes them"
            )


def check_name(name: str, what: str, *, where: str) -> str:
    """Return ``name``. Raises: CheckpointError if it is too long."""
    if len(name) > MAX_NAME_CHARACTERS:
        raise CheckpointError(
            f"{where}: {what} is named {shown(name, 40)!r} ({len(name)} characters, the limit is "
            f"{MAX_NAME_CHARACTERS})"
        )
    return name


def check_growth(needed: int, file_bytes: int, *, where: str, limit: int = MAX_FILE_BYTES) -> None:
    """Compare the memory that arrays will take with the size of their file.

    Raises: CheckpointError if they take more than any file of weights needs.
    """
    if needed > limit:
        raise CheckpointError(f"{where}: the weights need {needed} bytes, the limit is {limit}")
    if needed > MAX_GROWTH * file_bytes + FREE_BYTES:
        raise CheckpointError(
            f"{where}: the weights expand {file_bytes} bytes to {needed} by repetition, wanted "
            "distinct numbers"
        )

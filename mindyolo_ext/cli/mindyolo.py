"""Flags of MindYOLO's ``train.py`` that have no setting here. A value that asks for what happens
anyway is accepted; any other is refused with what to use instead.
"""

import argparse

from mindyolo_ext.cli.arguments import true_or_false
from mindyolo_ext.errors import UsageError

# flag: the value that changes nothing, and what is said of the other
_SWITCHES = {
    "overflow_still_update": (
        False,
        "a step whose gradient is not finite changes nothing here, and is counted; leave it out "
        "(train.max_bad_steps says when a run gives up)",
    ),
    "ms_jit": (True, "operators run one by one with --ms_mode 1"),
    "ms_datasink": (
        False,
        "batches come from data.workers, which work while a step runs; leave it out",
    ),
    "keep_loss_fp32": (
        True,
        "losses are computed in float32 at every --ms_amp_level; leave it out",
    ),
    "auto_accumulate": (False, "take --set train.optimizer.nominal_batch=64"),
}


def add_mindyolo(parser: argparse.ArgumentParser) -> None:
    """The flags, without a line in ``--help``."""
    for flag in _SWITCHES:
        parser.add_argument(f"--{flag}", type=true_or_false, help=argparse.SUPPRESS)
    parser.add_argument("--recompute_layers", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--nbs", type=int, help=argparse.SUPPRESS)


def check_mindyolo(options: argparse.Namespace) -> None:
    """Raises: UsageError for a flag that asks for what is not there."""
    values = vars(options)
    for flag, (usual, problem) in _SWITCHES.items():
        if values[flag] not in (None, usual):
            raise UsageError(f"--{flag} {values[flag]}: {problem}")
    if options.recompute_layers:
        raise UsageError(
            f"--recompute_layers {options.recompute_layers}: here all of backbone and neck is "
            "computed again, or nothing; take --recompute True"
        )
    if options.nbs is not None:
        raise UsageError(
            f"--nbs {options.nbs}: take --set train.optimizer.nominal_batch={options.nbs}"
        )

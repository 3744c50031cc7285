"""Options for compiling graphs for a device. Loads no framework."""

from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class GraphOptions:
    """Options of MindSpore's compiler; empty ones use MindSpore's defaults.

    Args:
        jit_level: ``O0`` kernel by kernel, ``O1`` with fused kernels, ``O2`` whole graphs.
        graph_kernel: whether operators are fused into kernels, as with ``jit_level`` O1.
        precision_mode: what Ascend's compiler may convert to half precision by itself.
    """

    jit_level: str = ""
    graph_kernel: bool = False
    precision_mode: str = ""

    @classmethod
    def of(cls, settings: object) -> "GraphOptions":
        """Those of a recipe's ``train`` section, which has fields of the same names."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})

    def given(self) -> list[tuple[str, object]]:
        """Names and values of the options that are set."""
        return [(key, value) for key, value in asdict(self).items() if value]


DEFAULTS = GraphOptions()

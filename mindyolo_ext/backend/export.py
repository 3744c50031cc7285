"""Graph files that the framework writes and runs itself."""

from mindyolo_ext.backend.choice import BACKEND

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.export import FORMATS, load_mindir, write_graph
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.export import FORMATS, load_mindir, write_graph

__all__ = ["FORMATS", "load_mindir", "write_graph"]

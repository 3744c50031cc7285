"""Exported files and the runtimes for them. Only running a MindIR file loads a framework.

``names`` lists the files of each runtime, ``file`` reads a file's metadata, each ``on_<runtime>``
opens a file as a ``Session``, and ``predictor`` turns it into a ``contracts.Predictor``.
"""

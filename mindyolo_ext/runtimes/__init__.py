"""Exported files and the programs that run them. Only running a MindIR file loads a framework.

``names`` says which runtime runs which file, ``file`` reads what a file says about itself, each
``on_<runtime>`` opens one as a ``Session``, and ``predictor`` makes it a ``contracts.Predictor``.
"""

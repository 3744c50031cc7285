"""A fuzzer of every reader that meets files of strangers.

``formats/`` makes files that are almost right, ``worker`` reads them and judges what happened,
``runner`` keeps the workers going and adds up. ``python -m tests.fuzz --help`` from the project's
root runs it. No framework is loaded.
"""

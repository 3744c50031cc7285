"""A fuzzer for every reader of untrusted files.

``formats/`` makes files that are almost valid, ``worker`` reads them and judges the outcome,
``runner`` keeps the workers going and counts. ``python -m tests.fuzz --help`` from the project's
root runs it. No framework is loaded.
"""

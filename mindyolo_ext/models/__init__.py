"""Detector families, one folder each; ``registry`` finds them. Importing this loads no
framework.
"""

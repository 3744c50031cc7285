"""Detector families, a folder each; ``registry`` finds them. Importing this loads no framework."""

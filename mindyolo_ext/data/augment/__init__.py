"""Augmentations that several families share. Importing this package registers them.

A family's own augmentations are in ``models/<family>/augment.py``;
``models.registry.load_augmentations`` registers them.
"""

from mindyolo_ext.data.augment import color, combine, external, geometry, outlines

__all__ = ["color", "combine", "external", "geometry", "outlines"]

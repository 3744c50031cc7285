"""Augmentations that several families share; importing this package registers them.

A family's own ones stand in ``models/<family>/augment.py``; ``models.registry.load_augmentations``
registers those.
"""

from mindyolo_ext.data.augment import color, combine, external, geometry, outlines

__all__ = ["color", "combine", "external", "geometry", "outlines"]

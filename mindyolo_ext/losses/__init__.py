"""Loss terms, box overlaps and label assigners that several families share. A family's own loss is
in its folder.
"""

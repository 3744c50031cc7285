"""Loss terms, overlaps and assigners that families share; a family's own loss is in its folder."""

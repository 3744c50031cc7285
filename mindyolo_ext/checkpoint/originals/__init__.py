"""Scripts that run the originals for ``verify`` in the user's own PyTorch; nothing here is
imported by this package.
"""

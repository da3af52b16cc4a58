"""Curate image-text data with CLIP: score every image once, keep what rules allow, say what became of each."""

__version__ = "0.1.0"

__all__ = ["__version__"]

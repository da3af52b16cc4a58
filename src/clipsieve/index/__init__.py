"""Vectors in a store that can be searched."""

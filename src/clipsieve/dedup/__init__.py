"""Near duplicates, from bytes, hashes or vectors."""

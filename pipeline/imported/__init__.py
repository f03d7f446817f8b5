"""Embeddings that exist already: find them, read their rows, and make them parts of a store.

The entry point is `import_store.import_store`.
"""

"""How an index is made of vectors: one file per kind of index."""

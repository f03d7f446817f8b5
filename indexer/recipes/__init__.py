"""How to build an index from vectors: one module per kind of index."""

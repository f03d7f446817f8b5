"""Parquet shards to a FAISS index: read, add, seal. The whole story is `indexer.build.build_index`.

Needs neither torch nor Ray: everything about the encoder is read from the store.
"""

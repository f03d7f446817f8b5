"""Parquet shards to a FAISS index. The whole story is `build.build_index`.

Needs neither torch nor Ray: all about the encoder is read from the store.
"""

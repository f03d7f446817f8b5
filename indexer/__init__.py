"""From Parquet shards to a FAISS index. The entry point is `build.build_index`.

Needs neither torch nor Ray: everything about the encoder is read from the store.
"""

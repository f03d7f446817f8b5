"""Images to Parquet shards: list, plan, decode, encode, commit.

The whole story is `pipeline.embed.embed`. Importing this package imports nothing heavy.
"""

__version__ = "0.1.0"

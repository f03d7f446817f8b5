"""Images to Parquet shards, and the pruned CLIP that makes them.

Each verb is a file here with one function that tells its whole story: `embed`, `dry_run`, `adapt`, `verify`,
`delete`, `compact`. The rooms beside them hold what the stories need, from `source` (where images come from) to
`store` (what is on disk). Importing this package imports nothing heavy.
"""

__version__ = "0.1.0"

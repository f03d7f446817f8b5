"""Where images come from: folders, WebDataset tars, Parquet files and lists, on disk or behind a URL.

`listing` lists a source using only names and footers. `reading` reads a planned shard, or one image. `formats` has one
module per kind of source. `access` opens and lists paths and URLs.
"""

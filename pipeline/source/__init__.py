"""Where images come from: folders, WebDataset tars, Parquet files and lists, on disk or behind a URL.

`listing` says what a source holds, by names and footers alone; `reading` reads a planned shard of it, or one image.
`formats` has one file per kind of source, `access` opens and lists what paths and URLs name.
"""

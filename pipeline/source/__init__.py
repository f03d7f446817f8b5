"""Where images come from: folders, WebDataset tars, Parquet files and lists, on disk or behind a URL.

listing.py   what a source holds, by its names alone: entries in the order of their keys, or files
reading.py   one planned shard as batches of entries
folder.py, webdataset.py, parquet.py, table.py   the four formats
location.py  paths and URLs: open, read, list; home of pyarrow.fs and fsspec
"""

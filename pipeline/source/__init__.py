"""Where images come from: folders, WebDataset tars, Parquet files and lists, on disk or behind a URL.

listing.py   what a source holds, by its names alone: entries in the order of their keys, or files
reading.py   one planned shard as batches of entries, one image by its URI
folder.py, webdataset.py, parquet.py, table.py   the four formats; captions.py what stands beside a folder
location.py  open, read, examine, list, and try again; naming.py what paths and URLs are called, failures.py what an
             error means, remote.py the file systems behind URLs: home of pyarrow.fs and fsspec
sorting.py   more than memory holds, in order
"""

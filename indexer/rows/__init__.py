"""The rows of an index: their vectors and metadata, in files that searches map instead of reading.

    index/rows-00000.vectors    [n, E] unit vectors, row by row, in the precision of the store, in id order
    index/rows-00000.ids        [n] int64, ascending
    index/rows-00000.arrows     key, uri, caption, width, height and carried columns: an Arrow IPC stream

A row's position is its place in these files. FAISS stores positions, not ids: they have no gaps. When a store grows,
its new rows are appended. What lies beyond the rows that a manifest counts does not exist for its readers.
"""

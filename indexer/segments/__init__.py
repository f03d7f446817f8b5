"""Segments: the vectors and the metadata of an index's rows, in files that searches map instead of reading.

    index/segment-00000.vectors    [n, E] unit vectors, row by row, in the precision of the store, in id order
    index/segment-00000.ids        [n] int64, ascending
    index/segment-00000.arrows     key, uri, caption, width, height and carried columns: an Arrow IPC stream

A row's position is its place over all segments of an index. FAISS stores positions, not ids: they have no gaps.
"""

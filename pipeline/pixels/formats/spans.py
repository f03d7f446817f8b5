"""Copying the wanted parts of a file."""

Span = tuple[int, int]
"""Begin and end of a part of a file, in bytes."""


def joined(data: bytes, spans: list[Span]) -> bytes:
    """The given parts of a file, in their order. Returns the file itself, not a copy, if they are all of it."""
    merged: list[Span] = []
    for begin, end in spans:
        if merged and merged[-1][1] == begin:
            merged[-1] = merged[-1][0], end
        else:
            merged.append((begin, end))
    view = memoryview(data)
    return data if merged == [(0, len(data))] else b"".join(view[begin:end] for begin, end in merged)

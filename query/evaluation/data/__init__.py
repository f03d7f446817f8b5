"""Data sets of a sweep: images, queries, and which image answers which query."""

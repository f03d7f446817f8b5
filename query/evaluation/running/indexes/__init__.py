"""Indexes over the vectors of a condition: built as `clipsieve index` builds them, ranked and timed at their points."""

"""The raw files of a sweep: what was measured, before any metric."""

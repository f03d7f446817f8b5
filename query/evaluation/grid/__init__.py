"""The grid of a sweep: one typed tree of keys, read from YAML with line numbers, expanded into conditions."""

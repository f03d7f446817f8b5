"""The tables of the report: the same cells become HTML and Markdown."""

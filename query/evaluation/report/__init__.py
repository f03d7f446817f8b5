"""The results as a page, as Markdown and as plots."""

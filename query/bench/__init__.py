"""Side-by-side measurements of towers and policies in one process."""

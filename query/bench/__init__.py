"""Side-by-side measurements of towers, and of everything that depends on a GPU."""

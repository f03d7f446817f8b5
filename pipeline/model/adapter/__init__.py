"""Low-rank adapters of both towers: their shape, their maths, and the files they are kept in."""

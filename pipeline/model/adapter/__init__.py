"""Low-rank adapters for both towers: their configuration, their maths and their files."""

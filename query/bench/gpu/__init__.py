"""`clipsieve bench gpu`: one command that measures everything that depends on a GPU, step by step."""

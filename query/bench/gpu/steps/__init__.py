"""One module per step. Each has `tasks(setup)`, and is imported only when its step runs."""

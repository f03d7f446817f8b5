"""The command line: one file per verb, with its summary, its examples, its settings, what it runs and its table."""

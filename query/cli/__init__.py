"""The command line: one file per verb, with its summary, examples, settings, `run` function and table."""

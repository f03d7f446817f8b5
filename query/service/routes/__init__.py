"""What can be asked: one file per group of addresses."""

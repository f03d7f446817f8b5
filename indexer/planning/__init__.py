"""Which index to build: what each candidate will take in bytes, memory and time, and which one wins."""

"""Benchmarks: image towers side by side, and policies by recall and speed."""

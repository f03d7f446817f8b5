"""Intervals, and what a sample could have shown. numpy only, no files."""

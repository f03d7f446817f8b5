"""Recall and its intervals, side-by-side timing, parity with open_clip, and where a number comes from."""

"""Recall and its confidence intervals, side-by-side timing, parity with open_clip, and provenance of measurements."""

"""Recall, side-by-side timing, parity with open_clip, and provenance of measurements."""

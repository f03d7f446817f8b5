"""Scores of queries against a gallery, in bounded memory: ranks, ties and the best hits."""

"""Pruning policies: as data, as cuts of a sequence, their cost, and how to attach them to a tower."""

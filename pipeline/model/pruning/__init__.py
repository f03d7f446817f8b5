"""Pruning policies: as data, as cuts of a sequence, what they cost, and how they are attached to a tower."""

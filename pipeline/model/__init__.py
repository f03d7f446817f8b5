"""The pruned CLIP: load it, prune its image tower by a policy, merge an adapter, encode.

The maths is in `pruning` (scores, tokens) and `adapter` (fusion). `towers` describes what pruning needs to know about
an image tower. `spec` lists everything that determines the value of an embedding.
"""

"""The pruned CLIP: load it, prune its image tower by a policy, merge an adapter, encode.

The maths is in `pruning` (scores, tokens) and `adapter` (fusion); `towers` says what pruning has to know of an image
tower. `spec` names all that decides an embedding's value.
"""

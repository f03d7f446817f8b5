"""Planning: compare a listing with the plans of a store, and cut what is new into shards.

The entry point is `extend.extend_plan`.
"""

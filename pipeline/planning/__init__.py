"""Planning: compare a listing with the plans of a store, and cut what is new into shards.

The entry point is `extend.extend_plan`; `new_keys` checks what is new before a run starts.
"""

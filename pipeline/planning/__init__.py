"""Planning: compare a listing with the plans of a store, and cut what is new into shards.

The entry points are `extend.find_changes` and `extend.write_changes`; `new_keys` checks the keys of
what is new.
"""

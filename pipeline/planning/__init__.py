"""What is to be done: a listing is compared with the plans of a store, and what is new is cut into shards.

The whole story is `extend.extend_plan`.
"""

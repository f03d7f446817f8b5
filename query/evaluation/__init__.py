"""What `clipsieve evaluate` is made of: the conditions that it compares, and the answers under each."""

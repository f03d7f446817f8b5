"""The parts of `clipsieve evaluate`: the conditions it compares, and the answers under each."""

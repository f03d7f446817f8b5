"""What a sweep runs: towers, timings, indexes and mixed galleries. Writes raw files and nothing else."""

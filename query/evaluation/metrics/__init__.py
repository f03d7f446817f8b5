"""From raw files to results. Reads nothing else."""

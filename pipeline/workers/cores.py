"""How encode workers and decode tasks share the cores of a cluster without GPUs. Pure."""

from collections.abc import Sequence


def threads_that_fit(num_workers: int, cores_of_nodes: Sequence[int]) -> int:
    """Threads a worker, the most with which all of them find room: a worker is on one node."""
    choices = range(max(cores_of_nodes, default=1), 0, -1)
    return next((t for t in choices if sum(cores // t for cores in cores_of_nodes) >= num_workers), 1)


def cpus_reserved(num_cpus: int, num_workers: int, threads: int) -> tuple[float, float]:
    """Cores that Ray shall count for an encode worker and for a decode task, on machines without GPUs.

    They share the cores: a worker reserves most of its own, and the rest admits about one decode task a core. Where
    there may be more workers than cores, no node shall take so many that nothing is left to decode with.
    """
    if threads > 1:  # Ray takes fractions of a core only below one
        return threads - 1, 0.25
    return (0.99, 0.01) if num_workers >= num_cpus else (0.75, 0.25)

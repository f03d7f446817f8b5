"""How encode workers and decode tasks share the cores of a cluster without GPUs. Pure functions."""

from collections.abc import Sequence


def threads_that_fit(num_workers: int, cores_of_nodes: Sequence[int]) -> int:
    """The most threads per worker with which all workers fit, given that a worker cannot span nodes."""
    choices = range(max(cores_of_nodes, default=1), 0, -1)
    return next((t for t in choices if sum(cores // t for cores in cores_of_nodes) >= num_workers), 1)


def cpus_reserved(num_cpus: int, num_workers: int, threads: int) -> tuple[float, float]:
    """Cores that Ray reserves for an encode worker and for a decode task, on machines without GPUs.

    They share the cores: a worker reserves most of its cores, and the rest leaves room for about one decode task per
    core. If there can be as many workers as cores, every node must keep some capacity for decoding.
    """
    if threads > 1:  # Ray accepts fractions of a core only below one
        return threads - 1, 0.25
    return (0.99, 0.01) if num_workers >= num_cpus else (0.75, 0.25)

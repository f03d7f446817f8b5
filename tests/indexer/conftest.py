import numpy as np
import pytest

from indexer.proof.queries import TextQueries
from tests.kit.vector_store import unit_vectors, vector_store

DIM, ROWS, PER_SHARD = 32, 3_000, 500


@pytest.fixture(scope="session")
def vectors():
    return unit_vectors(ROWS, DIM)


@pytest.fixture
def store(tmp_path, vectors):
    """3,000 vectors of 32 dimensions in 6 shards."""
    return vector_store(tmp_path / "store", vectors, PER_SHARD)


@pytest.fixture(scope="session")
def queries():
    """Queries that lie away from the vectors, as texts do."""
    found = unit_vectors(400, DIM, seed=5) + 0.7 * unit_vectors(1, DIM, seed=6)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return TextQueries(tuning_QE=found[:200], proving_QE=found[200:], source="400 test queries", sha256="0" * 64)

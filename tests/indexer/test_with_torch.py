"""torch and FAISS bring an OpenMP runtime each. Both compute in one process, from several threads."""

import subprocess
import sys

import pytest

PROGRAM = """
{imports}
from concurrent.futures import ThreadPoolExecutor
import numpy as np

torch.set_num_threads(2)
faiss.omp_set_num_threads(2)
vectors_NE = np.random.default_rng(0).standard_normal((4000, 64)).astype(np.float32)
vectors_NE /= np.linalg.norm(vectors_NE, axis=1, keepdims=True)
index = faiss.index_factory(64, "IVF16,SQfp16", faiss.METRIC_INNER_PRODUCT)
index.cp.min_points_per_centroid = 1


def search_and_multiply(number):
    own = index.search(vectors_NE[number : number + 64], 1, params=faiss.SearchParametersIVF(nprobe=16))[1][:, 0]
    batch_NE = torch.from_numpy(vectors_NE[number : number + 64])
    best = (batch_NE @ torch.from_numpy(vectors_NE).T).argmax(dim=1)
    expected = list(range(number, number + 64))
    return own.tolist() == expected and best.tolist() == expected


for repetition in range(3):  # training and adding use all threads, right after torch did
    index.reset()
    index.train(vectors_NE)
    index.add(vectors_NE)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(search_and_multiply, range(100)))
print("done")
"""


@pytest.mark.parametrize("imports", ["import torch, faiss", "import faiss, torch"])
def test_torch_and_faiss_in_one_process(imports):
    program = [sys.executable, "-c", PROGRAM.format(imports=imports)]
    run = subprocess.run(program, capture_output=True, text=True, timeout=300)
    assert (run.returncode, run.stdout) == (0, "done\n"), run.stderr

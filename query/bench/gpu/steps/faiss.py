"""Step `faiss`: exact search, k-means and IVF search on the CPU and the GPU, and whether they agree.

Everything runs beside torch in one process, and torch's own exact search is the truth.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np
import torch

from query.bench.gpu.setup import NotAvailable, Row, Setup, Task, seconds_of

K = 10
_LISTS_SEARCHED = 16


def tasks(setup: Setup) -> Iterator[Task]:
    """The tasks of this step."""
    bench = _Bench(setup)
    yield Task("truth by torch", 15, lambda: [bench.truth()])
    for place in ("cpu", "gpu"):
        yield Task(f"exact search, {place}", 25, lambda p=place: [bench.exact(p)])
    for place in ("cpu", "gpu"):
        yield Task(f"k-means, {place}", 30, lambda p=place: [bench.k_means(p)])
    for place in ("cpu", "gpu"):
        yield Task(f"IVF search, {place}", 40, lambda p=place: [bench.ivf(p)])
    yield Task("torch after FAISS", 5, lambda: [bench.torch_again()])


@dataclass
class _Bench:
    """Vectors in clusters, queries near them, and what is known of them so far."""

    setup: Setup
    _data: tuple[np.ndarray, np.ndarray] | None = None
    _truth: np.ndarray | None = None
    _found: dict[str, np.ndarray] = field(default_factory=dict)
    _index: Any = None
    _resources: Any = None

    def vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors [N, E] and queries [Q, E], float32."""
        if self._data is None:
            count, width = self.setup.scaled(1_000_000, 4_000), self.setup.scaled(512, 32)
            generator = torch.Generator(self.setup.device).manual_seed(0)
            options = {"generator": generator, "device": self.setup.device}
            centers = torch.randn(self.setup.scaled(4096, 64), width, **options)
            near = torch.randint(len(centers), (count,), **options)
            spread = 0.7
            vectors = centers[near] + spread * torch.randn(count, width, **options)
            chosen = torch.randint(count, (self.setup.scaled(4096, 100),), **options)
            queries = vectors[chosen] + spread * torch.randn(len(chosen), width, **options)
            unit = torch.nn.functional.normalize
            self._data = unit(vectors).cpu().numpy(), unit(queries).cpu().numpy()
        return self._data

    def truth(self) -> Row:
        """The nearest vectors by torch, in float32 on the device."""
        vectors, queries = self.vectors()
        on_device = torch.from_numpy(vectors).to(self.setup.device)

        def search() -> np.ndarray:
            asked = torch.from_numpy(queries).to(self.setup.device)
            parts = [(part @ on_device.T).topk(K, dim=1).indices.cpu() for part in asked.split(512)]
            return torch.cat(parts).numpy()

        search()
        seconds, self._truth = seconds_of(search)
        return {"name": "exact search, torch", **self._rates(seconds, self._truth)}

    def exact(self, place: str) -> Row:
        """FAISS's flat index."""
        vectors, _ = self.vectors()
        index = self._on(place, faiss.IndexFlatIP(vectors.shape[1]))
        add_s, _ = seconds_of(lambda: index.add(vectors))
        return {"name": f"exact search, {place}", "add_s": add_s, **self._searched(f"exact, {place}", index)}

    def k_means(self, place: str) -> Row:
        """Centroids of all vectors: seconds, and how well they fit (the sum of inner products, per vector)."""
        vectors, _ = self.vectors()
        count = self.setup.scaled(1024, 16)
        means = faiss.Kmeans(vectors.shape[1], count, niter=10, spherical=True, gpu=self._gpus(place), seed=1)
        seconds, _ = seconds_of(lambda: means.train(vectors))
        fit = float((vectors[:10_000] @ means.centroids.T).max(axis=1).mean())
        return {"name": f"k-means, {place}", "centroids": count, "seconds": seconds, "mean_cosine": fit}

    def ivf(self, place: str) -> Row:
        """An inverted file, trained and filled where it is searched."""
        vectors, _ = self.vectors()
        count = self.setup.scaled(1024, 16)
        width = vectors.shape[1]
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, count, faiss.METRIC_INNER_PRODUCT)
        index = self._on(place, index)
        train_s, _ = seconds_of(lambda: index.train(vectors[: 64 * count]))
        add_s, _ = seconds_of(lambda: index.add(vectors))
        index.nprobe = _LISTS_SEARCHED
        row = {"name": f"IVF search, {place}", "lists": count, "lists_searched": _LISTS_SEARCHED}
        row |= {"train_s": train_s, "add_s": add_s, **self._searched(f"ivf, {place}", index)}
        if place == "gpu":  # as stored on disk, and searched on the CPU
            on_cpu = faiss.index_gpu_to_cpu(index)
            on_cpu.nprobe = _LISTS_SEARCHED
            _, queries = self.vectors()
            row["agreement_after_moving_to_cpu"] = _agreement(on_cpu.search(queries, K)[1], self._found["ivf, gpu"])
        return row

    def torch_again(self) -> Row:
        """Torch still computes the same after FAISS has used the device."""
        before = self._truth if self._truth is not None else self.truth() and self._truth
        self.truth()
        return {"name": "torch after FAISS", "agreement": _agreement(self._truth, before)}

    def _searched(self, name: str, index: Any) -> Row:
        _, queries = self.vectors()
        index.search(queries[:100], K)
        seconds, (_, found) = seconds_of(lambda: index.search(queries, K))
        self._found[name] = found
        row = self._rates(seconds, found)
        other = self._found.get(name.replace("gpu", "cpu"))
        return row if other is found or other is None else row | {"agreement_with_cpu": _agreement(found, other)}

    def _rates(self, seconds: float, found: np.ndarray) -> Row:
        vectors, queries = self.vectors()
        row: Row = {"vectors": len(vectors), "width": vectors.shape[1], "queries_per_second": len(queries) / seconds}
        if self._truth is not None:
            row[f"recall_at_{K}"] = _agreement(found, self._truth)
        return row

    def _gpus(self, place: str) -> bool:
        if place == "gpu" and (self.setup.device == "cpu" or faiss.get_num_gpus() == 0):
            raise NotAvailable("FAISS finds no GPU" if self.setup.device == "cuda" else "this run is on the CPU")
        return place == "gpu"

    def _on(self, place: str, index: Any) -> Any:
        if not self._gpus(place):
            return index
        self._resources = self._resources or faiss.StandardGpuResources()
        return faiss.index_cpu_to_gpu(self._resources, 0, index)


def _agreement(found: np.ndarray, expected: np.ndarray) -> float:
    """Mean share of the expected neighbours that were found."""
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found.tolist(), expected.tolist(), strict=True)]))

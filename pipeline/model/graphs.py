"""Replay a forward pass as a CUDA graph: one launch instead of several hundred.

A pruned tower runs many small kernels. On a fast GPU, the CPU cannot launch them as fast as the GPU finishes them.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_WARM_UPS = 2
MAX_GRAPHS = 2
"""Shapes with a graph; each holds the memory of its activations. Others run without one."""


class ReplayedForward:
    """A forward pass that is captured for each shape of its input when the shape is seen for the second time.

    The last batch of a collection has a shape of its own, which is not worth a capture.
    """

    def __init__(self, forward: Callable[[Tensor], Tensor], pool: Any = None) -> None:
        """Wrap a forward pass.

        Args:
            forward: Must run on the GPU only, without reading values back.
            pool: Memory of the activations, from `torch.cuda.graph_pool_handle`. Several forward passes can share one
                if they never run at the same time. By default, there is one for this forward pass.
        """
        self._forward = forward
        self._pool = pool
        self._seen: set[torch.Size] = set()
        self._graphs: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """The result of the forward pass, in memory of its own."""
        if x.shape not in self._graphs:
            if x.shape not in self._seen or len(self._graphs) == MAX_GRAPHS:
                self._seen.add(x.shape)
                return self._forward(x)
            self._graphs[x.shape] = self._capture(x)
        graph, own_input, output = self._graphs[x.shape]
        own_input.copy_(x)
        graph.replay()
        return output.clone()

    def clear(self) -> None:
        """Forget all graphs, and free their memory."""
        self._graphs.clear()
        self._pool = None

    def _capture(self, x: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        own_input = x.clone()
        stream = torch.cuda.Stream(x.device)
        stream.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(stream):  # libraries allocate their workspaces now, not during the capture
            for _ in range(_WARM_UPS):
                self._forward(own_input)
        torch.cuda.current_stream(x.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # a result is copied before the next replay, so graphs may use each other's memory
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        # thread_local: another thread loads the next batch meanwhile
        with torch.cuda.graph(graph, self._pool, stream, capture_error_mode="thread_local"):
            output = self._forward(own_input)
        return graph, own_input, output

"""A piece of a training step as one launch: a CUDA graph, recorded once and replayed.

A GPU runs the layers of a small backbone faster than the host can launch their kernels one by one. Where shapes are
fixed (`cpadapt.bank.packing.RowCapacity`) and everything that changes is in tensors on the device, the launches can be
recorded once.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import torch


class Launches:
    """Runs pieces of work, from the second time on as recorded graphs.

    The first time a piece runs eagerly. That compiles its kernels and fills the caches of libraries, which must not
    happen while recording. The graphs share their memory, so no piece may read what another one allocated.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.forget()

    def forget(self) -> None:
        """Drop all recordings and their memory."""
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph | None] = {}
        self._pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def on_stream(self) -> Iterator[None]:
        """Run on a separate stream: work that began on the default stream cannot be recorded."""
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            yield
        torch.cuda.current_stream(self.device).wait_stream(self.stream)

    def launch(self, key: Hashable, work: Callable[[], None]) -> None:
        """Run a piece of work.

        Args:
            key: names the work. One key always means the same work on the same tensors.
            work: reads and writes tensors that outlive it and whose shapes do not change, and never waits for the
                device.
        """
        if key not in self._graphs:
            work()
            self._graphs[key] = None
            return
        graph = self._graphs[key]
        if graph is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, stream=self.stream):
                work()
            self._graphs[key] = graph
        graph.replay()

"""What dask gives a worker before its first slide; apart from `worker`, which also runs without dask's cluster."""

from __future__ import annotations

import signal

from distributed import Worker, WorkerPlugin

from wsi_attention.inference.cluster.worker import carry


class ModelPlugin(WorkerPlugin):
    """Brings a model once to each worker that cannot see its folder, also to those that join or restart later."""

    def __init__(self, sha256: str, files: dict[str, bytes]) -> None:
        """Take the files of the model whose weights have this sha256."""
        self.name = f"wsi-attention-model-{sha256}"
        self._sha256 = sha256
        self._files = files

    def setup(self, worker: Worker) -> None:
        """Keep the files; called in each worker."""
        carry(self._sha256, self._files)


def dask_setup(worker: Worker) -> None:
    """Run as a preload in workers of our own: Ctrl-C is for the process that started them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

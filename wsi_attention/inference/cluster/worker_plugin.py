"""What dask gives a worker before its first slide; apart from `worker`, which also runs without dask's cluster."""

from __future__ import annotations

import signal

from distributed import Worker, WorkerPlugin

from wsi_attention.inference.cluster.worker import ModelKey, carry


class ModelPlugin(WorkerPlugin):
    """Brings a model once to each worker that cannot see its folder, also to those that join or restart later."""

    def __init__(self, key: ModelKey, files: dict[str, bytes]) -> None:
        """Take the files of the model with this key."""
        self.name = f"wsi-attention-model-{'-'.join(key)}"
        self._key = key
        self._files = files

    def setup(self, worker: Worker) -> None:
        """Keep the files; called in each worker."""
        carry(self._key, self._files)


def dask_setup(worker: Worker) -> None:
    """Run as a preload in workers of our own: Ctrl-C is for the process that started them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

"""What a worker is given before its first slide."""

from __future__ import annotations

import signal

from distributed import Worker, WorkerPlugin

from wsi_attention.inference.remote import carry


class ModelPlugin(WorkerPlugin):
    """Brings a model to workers that cannot see its folder, once each, also to those that join or start again later."""

    def __init__(self, sha256: str, files: dict[str, bytes]) -> None:
        """The model whose weights have this sha256."""
        self.name = f"wsi-attention-model-{sha256}"
        self._sha256 = sha256
        self._files = files

    def setup(self, worker: Worker) -> None:
        """Called in each worker."""
        carry(self._sha256, self._files)


def dask_setup(worker: Worker) -> None:
    """Run as a preload in workers of our own: Ctrl-C is for the process that started them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

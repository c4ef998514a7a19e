"""Brings a model to workers that cannot see its folder, also to those that join or start again later."""

from __future__ import annotations

from distributed import Worker, WorkerPlugin

from wsi_attention.inference.remote import carry


class ModelPlugin(WorkerPlugin):
    """A model's files, sent once a worker."""

    def __init__(self, sha256: str, files: dict[str, bytes]) -> None:
        """The model whose weights have this sha256."""
        self.name = f"wsi-attention-model-{sha256}"
        self._sha256 = sha256
        self._files = files

    def setup(self, worker: Worker) -> None:
        """Called in each worker."""
        carry(self._sha256, self._files)

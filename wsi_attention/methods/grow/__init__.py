"""Attention that grows from what its tiles show: docs/methods/grow.md."""

"""Wrappers that leave no trace in a state dict: weights keep the names they have without the wrapper."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from torch import nn

CHILD = "network."


def hide_wrapper(wrapper: nn.Module) -> None:
    """Makes a module that holds its one stateful child as `network` read and write the child's own names.

    So a frozen encoder, a fine-tuned one and the library's own file of it are told apart by nothing, and any of them
    loads where another was saved.
    """
    wrapper.register_state_dict_post_hook(_short_names)  # type: ignore[no-untyped-call]
    wrapper.register_load_state_dict_pre_hook(_long_names)  # type: ignore[no-untyped-call]


def _short_names(module: nn.Module, state: MutableMapping[str, Any], prefix: str, metadata: Any) -> None:
    long = prefix + CHILD
    for name in [name for name in state if name.startswith(long)]:
        state[prefix + name.removeprefix(long)] = state.pop(name)


def _long_names(module: nn.Module, state: MutableMapping[str, Any], prefix: str, *_: Any) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[prefix + CHILD + name.removeprefix(prefix)] = state.pop(name)

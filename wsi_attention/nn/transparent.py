"""Wrappers that do not show in a state dict: weights keep the names that they have without the wrapper."""

from __future__ import annotations

from collections.abc import MutableMapping

from torch import nn

CHILD = "network."


def hide_wrapper(wrapper: nn.Module) -> None:
    """Make a module read and write the names of `network`, its only child with weights, without that prefix.

    So a frozen encoder, a fine-tuned one and the library's own file have the same names, and each can be loaded from
    what another saved.
    """
    wrapper.register_state_dict_post_hook(_short_names)
    wrapper.register_load_state_dict_pre_hook(_long_names)


def _short_names(module: nn.Module, state: MutableMapping[str, object], prefix: str, metadata: object) -> None:
    long = prefix + CHILD
    for name in [name for name in state if name.startswith(long)]:
        state[prefix + name.removeprefix(long)] = state.pop(name)


def _long_names(module: nn.Module, state: MutableMapping[str, object], prefix: str, *_: object) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[prefix + CHILD + name.removeprefix(prefix)] = state.pop(name)

"""What a process can be forked for, and what is said to the one that forks it."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENVIRONMENT = dict(os.environ)
"""The environment in which the warm process imports everything."""
CODING = "PYTHONIOENCODING"
FREE = {
    "HF_HOME", "HF_HUB_CACHE", "HOME", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "PATH", "PYTEST_CURRENT_TEST",
    "PYTHONPATH", "PYTORCH_NVML_BASED_CUDA_CHECK", "QT_QPA_PLATFORM", "TMPDIR", "TORCHINDUCTOR_CACHE_DIR",
    "WSI_ATTENTION_CACHE", "WSI_ATTENTION_CACHE_GB", "WSI_ATTENTION_ENCODERS", "WSI_ATTENTION_ENGINE",
    "WSI_ATTENTION_WORK", "XDG_CACHE_HOME", CODING,
}  # fmt: skip
"""Variables that no module of the warm process reads while it is imported, so that they may differ from its own.

Those of torch are set by lightning and by torch itself in a process that has trained, those of KMP by scikit-learn.
"""
UNUSUAL = ("executable", "preexec_fn", "startupinfo", "creationflags", "shell", "gid", "gids", "uid")
"""Arguments of `Popen` that nothing here understands."""


@dataclass(frozen=True)
class Request:
    """A Python process to start.

    Attributes:
        command: Python's arguments, from the first option or the script on.
        folder: the working directory.
        environment: all variables.
        kept: file descriptors that stay open beside the three streams.
        session: whether it begins a session.
        group: its process group; -1 stays in that of the process that forks.
    """

    command: tuple[str, ...]
    folder: str
    environment: Mapping[str, str]
    kept: tuple[int, ...]
    session: bool
    group: int


def request_of(asked: Mapping[str, Any]) -> Request | None:
    """Return the request for what `Popen` was asked, None where that cannot be forked."""
    environment = dict(os.environ if asked["env"] is None else asked["env"])
    if any(asked[name] for name in UNUSUAL) or asked["umask"] != -1 or not asked["close_fds"]:
        return None
    if not _imports_alike(environment):
        return None
    command = python_command([os.fspath(part) for part in asked["args"]], environment)
    if command is None:
        return None
    folder, kept = os.fspath(asked["cwd"] or Path.cwd()), tuple(asked["pass_fds"])
    return Request(command, folder, environment, kept, asked["start_new_session"], asked["process_group"])


def _imports_alike(environment: Mapping[str, str]) -> bool:
    """Whether the modules of the warm process would be the same if they were imported in this environment."""
    free = set(FREE)
    if not sys.flags.utf8_mode and environment.get("PYTHONUTF8") == "0":
        free.add("PYTHONUTF8")
    if environment.get("SLURM_PROCID", "0") == "0":  # where there is none, lightning takes it for 0
        free |= {name for name in environment.keys() | ENVIRONMENT if name.startswith("SLURM_")}
    return all(environment.get(name) == ENVIRONMENT.get(name) for name in (environment.keys() | ENVIRONMENT) - free)


def python_command(command: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the arguments of this Python that a command amounts to, None where that cannot be forked."""
    program = shutil.which(command[0], path=environment.get("PATH"))
    if program is None:
        return None
    arguments = tuple(command[1:])
    if program != sys.executable:
        with Path(program).open("rb") as file:
            if file.readline().strip() != f"#!{sys.executable}".encode():
                return None
        arguments = (program, *arguments)
    plain = arguments[1:] if arguments[:1] == ("-P",) else arguments
    return arguments if plain and (plain[0] in ("-c", "-m") or not plain[0].startswith("-")) else None


def send(to: socket.socket, request: Request, descriptors: Sequence[int], end: Sequence[int] = ()) -> None:
    """Send a request, in a file as an environment may be long, and its descriptors; before them what tells its end."""
    with os.fdopen(os.memfd_create("request"), "wb") as file:
        pickle.dump(request, file)
        file.flush()
        socket.send_fds(to, [b"."], [*end, file.fileno(), *descriptors])


def receive(source: socket.socket) -> list[int] | None:
    """Return the descriptors of the next request, None where nobody can ask any more."""
    word, descriptors, _, _ = socket.recv_fds(source, 1, 64)
    return list(descriptors) if word else None


def unpacked(descriptor: int) -> Request:
    """Return the request behind a descriptor."""
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        request = pickle.load(file)
    assert isinstance(request, Request)
    return request

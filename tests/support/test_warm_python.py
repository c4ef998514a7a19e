"""A process from the warm one is a process of its own, as new as one that Python starts itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import warm_python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
STATE = """
import os, signal, sys, threading
open_now = [number for number in range(256) if os.path.exists(f"/proc/self/fd/{number}") and os.get_inheritable(number)]
print(__name__, sys.argv, sys.path, os.getcwd(), open_now, os.environ.get("HOME"))
print(sys.stdin.read(), sys.stdout.encoding, sys.stdout.errors, sys.stdout.line_buffering, sys.stderr.errors)
print(signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGPIPE), threading.active_count(), os.getsid(0) == SID)
print(os.getpgid(0) == os.getpid(), os.isatty(0), sys.flags.utf8_mode, sys.stdin.encoding, sys.stdin.errors)
"""
WARM = [sys.executable, "-c", "import sys; print('torch' in sys.modules)"]


@pytest.mark.parametrize(
    ("how", "encoding"),
    [("code", None), ("script", "cp1252"), ("safe", "ascii:replace"), ("session", None)],
)
def test_all_that_a_program_can_see_is_as_in_a_new_interpreter(how: str, encoding: str | None, tmp_path: Path) -> None:
    code = STATE.replace("SID", str(os.getsid(0)))
    (tmp_path / "a.py").write_text(code)
    command = {"script": [str(tmp_path / "a.py")], "safe": ["-P", "-c", code]}.get(how, ["-c", code])
    environment = os.environ | {"HOME": "/nowhere", "PYTHONPATH": "/here"}
    environment |= {"PYTHONIOENCODING": encoding} if encoding else {}
    said = []
    for start in (subprocess.Popen, warm_python.Popen):
        process = start(
            [sys.executable, *command, "-m", "ä"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path,
            env=environment, start_new_session=how == "session", stderr=subprocess.PIPE,
        )  # fmt: skip
        said.append((*(text.decode("cp437") for text in process.communicate(b"given")), process.returncode))
    assert said[0] == said[1]
    assert said[0][2] == 0


@pytest.mark.parametrize(
    ("code", "status"),
    [("pass", 0), ("raise SystemExit(3)", 3), ("import os; os._exit(4)", 4), ("1 / 0", 1),
     ("import os; os.abort()", -6), ("raise KeyboardInterrupt", -2), ("import os; os.kill(os.getpid(), 9)", -9)],
)  # fmt: skip
def test_it_ends_as_any_process(code: str, status: int) -> None:
    ran = warm_python.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == status
    assert ("Traceback" in ran.stderr) == (status in (1, -2))


def test_what_is_registered_and_buffered_at_the_end_is_done() -> None:
    code = "import atexit, ctypes; atexit.register(print, 'bye'); print('hello'); ctypes.CDLL(None).printf(b'from C')"
    said = warm_python.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert sorted(said.replace("from C", "from C\n").split("\n")) == ["", "bye", "from C", "hello"]


def test_signals_and_timeouts_reach_it() -> None:
    code = "import time; print('ready', flush=True); time.sleep(60)"
    with warm_python.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT
    with pytest.raises(subprocess.TimeoutExpired):
        warm_python.run([sys.executable, "-c", code], capture_output=True, timeout=0.5)


def test_two_processes_share_neither_chance_nor_modules() -> None:
    code = "import random, numpy, secrets; print(random.random(), numpy.random.random(), secrets.token_hex(4))"
    first, second = (warm_python.run([sys.executable, "-c", code], capture_output=True).stdout for _ in range(2))
    assert not set(first.split()) & set(second.split())
    warm_python.run([sys.executable, "-c", "import torch; torch.nan = 5"], check=True)
    warm_python.run([sys.executable, "-c", "import torch; assert torch.nan != 5"], check=True)


def told(command: list[str], **options: Any) -> str:
    return str(warm_python.run(command, capture_output=True, text=True, check=True, **options).stdout)


def test_what_could_matter_to_an_import_gets_a_new_interpreter() -> None:
    assert told(WARM) == "True\n"
    assert told(WARM, env=os.environ | {"ANY": "1"}) == "False\n"
    assert told([sys.executable, "-W", "error", *WARM[1:]]) == "False\n"
    assert told(["echo", "it"]) == "it\n"
    with pytest.raises(FileNotFoundError):
        told(["no-such-program"])


NESTED = """
import os, subprocess, sys
code = "import os, sys; print('torch' in sys.modules, os.getppid() == int(sys.argv[1]), sys.stdin.read()); sys.exit(5)"
for text in ("first", "second"):
    ran = subprocess.run([sys.executable, "-c", code, str(os.getpid())], input=text, capture_output=True, text=True)
    print(ran.returncode, ran.stdout + ran.stderr, end="")
"""


def test_the_first_python_it_starts_is_warm_and_its_own_child() -> None:
    assert told([sys.executable, "-c", NESTED]) == "5 True True first\n5 False True second\n"


def test_nothing_is_left_of_it() -> None:
    psutil = pytest.importorskip("psutil")
    code = "import os, psutil; print(os.getpid(), *(one.pid for one in psutil.Process().children()), flush=True); "
    for end in ("pass", "os.kill(os.getpid(), 9)"):
        ran = warm_python.run([sys.executable, "-c", code + end], capture_output=True, text=True)
        own, child = map(int, ran.stdout.split())
        assert not psutil.pid_exists(own)
        late = time.monotonic() + 20
        while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < late
            time.sleep(0.02)

"""Python processes that start in milliseconds: forked from one that has imported what the commands import.

`run` and `Popen` are those of `subprocess`, and so is what they start: a process of its own, with its own arguments,
streams, folder, environment, session, signals and exit status, in which nothing has run yet. Only imports are done.
Tests of importing itself, of missing packages, of encodings and of memory take `subprocess`.

What cannot be forked like that is started as `subprocess` does it: another program, an option of Python other than -c,
-m and -P, an environment that could matter while modules are imported, and everything on a system other than Linux.
"""

from warm_python.popen import Popen, run

__all__ = ["Popen", "run"]

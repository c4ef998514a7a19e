"""The command line: `wsi-attention COMMAND`. Commands parse, call one public function and print; heavy imports wait."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Iterator
from typing import NoReturn

from wsi_attention.cli.interrupts import LINE, STATUS, noted, starting


def main() -> None:
    """Run the command line; every expected failure is one line on stderr, with `--debug` a traceback too.

    Exit status: 0 all well, 1 some slides failed, 2 the call itself was wrong, 130 interrupted.
    """
    debug = "--debug" in sys.argv
    arguments = certify_named(gpus_joined([argument for argument in sys.argv[1:] if argument != "--debug"]))
    _write_what_can_be_written()
    with noted() as interrupts:
        try:
            _run(arguments)
        except BaseException as error:
            chain = [*_chain(error)]
            # a library that is interrupted while it is imported may say anything
            if any(isinstance(one, KeyboardInterrupt) for one in chain) or (
                interrupts and isinstance(error, Exception)
            ):
                print(LINE, file=sys.stderr)
                sys.exit(STATUS)
            if any(isinstance(one, BrokenPipeError) for one in chain):
                _leave_quietly()
            if not isinstance(error, Exception):
                raise
            _report(error, debug)


def gpus_joined(arguments: list[str]) -> list[str]:
    """Return the arguments with the numbers after `--gpus` as one, as an option takes only one: `--gpus 0 1`."""
    if "--gpus" not in arguments:
        return arguments
    first = arguments.index("--gpus") + 1
    last = next((at for at in range(first, len(arguments)) if not arguments[at].isdecimal()), len(arguments))
    return [*arguments[:first], *([",".join(arguments[first:last])] if last > first else []), *arguments[last:]]


def certify_named(arguments: list[str]) -> list[str]:
    """Return the arguments with a bare `--certify` as `--certify proof`, as an option always takes a value."""
    if "--certify" not in arguments:
        return arguments
    after = arguments.index("--certify") + 1
    given = arguments[after : after + 1]
    named = given == ["proof"] or (given and given[0].replace(".", "", 1).isdecimal())
    return arguments if named else [*arguments[:after], "proof", *arguments[after:]]


def _run(arguments: list[str]) -> None:
    try:
        with starting():
            from wsi_attention.cli.app import app

        app(arguments, prog_name="wsi-attention")
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()


def _write_what_can_be_written() -> None:
    """Write characters that the terminal's encoding lacks, such as µ in cp932, as \\xb5 instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error, its cause, the cause of that, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _leave_quietly() -> NoReturn:
    """End the program without a message when the reader of its output has gone, as `| head` does."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            os.dup2(nothing, stream.fileno())
    sys.exit(0)


def _report(error: Exception, debug: bool) -> NoReturn:
    from wsi_attention.errors import WsiAttentionError
    from wsi_attention.plain_text import visible

    if debug:
        traceback.print_exc()
    expected = isinstance(error, WsiAttentionError | OSError)
    text = visible(" ".join(str(error).split())) or type(error).__name__
    if not expected:
        text = f"unexpected {type(error).__name__}: {text} (run again with --debug for the traceback)"
    print(f"wsi-attention: error: {text}", file=sys.stderr)
    sys.exit(2 if expected else 1)

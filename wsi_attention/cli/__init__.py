"""The command line: `wsi-attention COMMAND`. Commands parse, call one public function and print; heavy imports wait."""

from __future__ import annotations

import os
import sys
import traceback


def main() -> None:
    """Runs the command line; every expected failure is one line on stderr, with `--debug` a traceback too.

    Exit status: 0 all well, 1 some slides failed, 2 the call itself was wrong, 130 interrupted.
    """
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        from wsi_attention.cli.app import app

        app(arguments, prog_name="wsi-attention")
    except KeyboardInterrupt:
        print("wsi-attention: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        _report(error, debug)


def _report(error: Exception, debug: bool) -> None:
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

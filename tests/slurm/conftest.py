"""Ctrl-C ends these tests too: `make test` starts them in the background, where a shell has them ignore it."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

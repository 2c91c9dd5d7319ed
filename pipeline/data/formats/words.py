"""Run the readers of others without their words: their errors and warnings quote values of headers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.data.decoders.formats import BadImage


@contextmanager
def no_words(damaged: str) -> Iterator[None]:
    """Raise `BadImage` that says `damaged` and the kind of the error in place of a reader's error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (BadImage, MemoryError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno:  # of the disk, not of a codec
                raise
            raise BadImage(f"{damaged} ({type(error).__name__})") from None

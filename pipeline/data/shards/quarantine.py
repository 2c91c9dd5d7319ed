"""The quarantine: images that cannot be used, each with its reason, and how many of them a job accepts."""

from __future__ import annotations

from pathlib import Path

LISTED = 20  # entries that an error message lists; it counts the others

Entry = dict[str, str]
"""`file`, as `relative_name` gives it, and `reason`; manifests store entries as they are."""


def entry(path: Path, root: Path, reason: str) -> Entry:
    return {"file": relative_name(path, root), "reason": reason}


def relative_name(path: Path, root: Path) -> str:
    """`path` relative to the raw folder `root`; the whole path if it is outside."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def check(entries: list[Entry], *, total: int, max_bad: float, strict: bool) -> None:
    """Raise `ValueError` if more than `max_bad` of `total` images are bad, or any with `strict`; it lists them."""
    if not entries or (not strict and len(entries) / total <= max_bad):
        return
    lines = "\n".join(f"  {bad['file']}: {bad['reason']}" for bad in entries[:LISTED])
    more = f"\n  and {len(entries) - LISTED} more" if len(entries) > LISTED else ""
    rule = (
        "--strict accepts none; fix them or omit --strict"
        if strict
        else f"--max-bad accepts {max_bad:g} of them; fix them or raise --max-bad"
    )
    raise ValueError(f"{len(entries)} of {total} images cannot be used and {rule}:\n{lines}{more}")

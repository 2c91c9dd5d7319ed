"""What is to be said of images that were written: blank ones, oddities of files, 16-bit values that use little of their
range."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.console import counted, visible
from pipeline.data.shards.transcode import Transcoded

NAMED = 20  # blank images that are named; the others are counted
LITTLE = 15  # bits; values of no more are called a small part of 16


@dataclass
class Observed:
    """What was seen while images were decoded. The fields are keys of manifests and of the rows files of tars."""

    blank: list[str] = field(default_factory=list)
    """Names of images of one colour, as they can be shown."""
    remarks: Counter[str] = field(default_factory=Counter)
    """How many files have an oddity."""
    wide: int = 0
    """The number of 16-bit grey images."""
    peak: int = 0
    """The greatest value in any of them."""

    def add(self, name: str, image: Transcoded) -> None:
        if image.is_blank:
            self.blank.append(name)
        self.remarks.update(image.remarks)
        if image.peak is not None:
            self.wide += 1
            self.peak = max(self.peak, image.peak)

    def merge(self, other: Observed) -> None:
        self.blank += other.blank
        self.remarks.update(other.remarks)
        self.wide += other.wide
        self.peak = max(self.peak, other.peak)

    def to_json(self) -> dict[str, Any]:
        return {
            "blank": sorted(self.blank),
            "remarks": {visible(text): count for text, count in sorted(self.remarks.items())},
            "wide": self.wide,
            "peak": self.peak,
        }

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> Observed:
        """From a manifest or a rows file; those of earlier versions know nothing."""
        return cls(
            list(value.get("blank", ())),
            Counter(value.get("remarks", {})),
            int(value.get("wide", 0)),
            int(value.get("peak", 0)),
        )

    @classmethod
    def is_in(cls, manifest: Mapping[str, Any]) -> bool:
        """Whether the version that wrote a manifest looked for damage and for what is observed."""
        return "remarks" in manifest

    def lines(self, bits: int | None) -> list[str]:
        """What a person is to be told, given `--bits`."""
        out = [f"{counted(count, 'image')}: {text}" for text, count in sorted(self.remarks.items())]
        if (hint := range_hint(self.wide, self.peak, bits)) is not None:
            out.append(hint)
        if self.blank:
            more = f" and {len(self.blank) - NAMED} more" if len(self.blank) > NAMED else ""
            blank = counted(len(self.blank), "image is blank", "images are blank")
            out.append(f"{blank} (one colour): {', '.join(self.blank[:NAMED])}{more}")
        return out


def range_hint(wide: int, peak: int, bits: int | None) -> str | None:
    """What to say of `wide` 16-bit grey images whose greatest value is `peak`; None if they use their range."""
    if not wide or bits is not None or peak.bit_length() > LITTLE:
        return None
    used, stored = max(9, peak.bit_length()), (peak * 255 + 32767) // 65535
    return (
        f"{counted(wide, '16-bit image')} of which little of the range is used: the greatest value is {peak:,} of "
        f"65,535, which becomes {stored} of 255; if the values have {used} bits, give --bits {used}"
    )

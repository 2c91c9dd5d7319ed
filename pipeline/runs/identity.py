"""What names a run and relates it to others: its id, its JSON both ways, and which runs are alike.

Equal values have equal ids on every machine. A field with `later(default)` stays out of the hash while it holds that
default, so ids given before the field existed stay valid.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import types
import typing
import weakref
from collections.abc import Mapping
from typing import Any

from pipeline.runs.methods import method_info
from pipeline.runs.spec import REVISIONS, FinetuneSpec, PretrainSpec, Spec, kind_of, method_of
from pipeline.runs.values import one_of

# Learning rates that do not depend on the number of epochs.
ENDLESS_SCHEDULES = ("cosine", "constant")

KINDS: dict[str, type[PretrainSpec] | type[FinetuneSpec]] = {"pretrain": PretrainSpec, "finetune": FinetuneSpec}


def run_id(spec: Spec) -> str:
    """A readable name and 12 hex digits of the SHA-256 of the value, such as `isic-cass-s77-f636716982e4`."""
    text = json.dumps({"kind": kind_of(spec), **_hashed(spec)}, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    parts = [spec.dataset.name, method_of(spec)]
    if isinstance(spec, FinetuneSpec):
        parts += [spec.backbone.split(".")[0], f"{spec.label_fraction * 100:g}pct"]
    return "-".join([*parts, f"s{spec.seed}", digest])


def without_seed(spec: FinetuneSpec) -> FinetuneSpec:
    """What the seeds of one cell of a table have in common."""
    pretrain = spec.pretrain and dataclasses.replace(spec.pretrain, seed=0)
    return dataclasses.replace(spec, seed=0, pretrain=pretrain)


def recipe(spec: FinetuneSpec) -> str:
    """An id that all seeds and label fractions of one fine-tuning recipe share."""
    return run_id(dataclasses.replace(without_seed(spec), label_fraction=1.0, val_fraction=1.0))


def milestone_of(shorter: Spec, longer: Spec) -> bool:
    """Whether the longer run passes through the shorter one's last state, and one accumulator can average for both.

    This holds if they differ in their epochs alone, no step depends on that number, and the longer run starts to
    average its weights only after the shorter one's end.
    """
    if not isinstance(shorter, PretrainSpec) or dataclasses.replace(shorter, epochs=longer.epochs) != longer:
        return False
    optims = [arm.optim for arm in shorter.arms]
    endless = all(o.schedule in ENDLESS_SCHEDULES and o.last_weight_decay is None for o in optims)
    if not endless or method_info(shorter.method.name).epochs_enter_steps or shorter.epochs >= longer.epochs:
        return False
    return shorter.average is None or shorter.epochs <= shorter.average.window(longer.epochs).start


def to_json(spec: Spec) -> dict[str, Any]:
    """The whole value as plain JSON, with its kind first."""
    return {"kind": kind_of(spec), **dataclasses.asdict(spec)}


def from_json(value: dict[str, Any]) -> Spec:
    """The spec that a JSON object describes; `ValueError` with the known names for an unknown kind or field."""
    rest = dict(value)
    kind = rest.pop("kind", None)
    one_of("a spec's kind", str(kind), tuple(KINDS))
    spec: Spec = _build(KINDS[str(kind)], rest)
    return spec


# --- What enters the hash --------------------------------------------------------------------------------------------

_KNOWN: dict[int, tuple[weakref.ref[Any], dict[str, Any]]] = {}
"""What enters the hash, by `id` of the value. Specs share most of their parts, and options make some unhashable.

An entry holds only while its value is alive, which the reference tells: an `id` may be given again. Nothing is stored
in the values themselves, so nothing of it is pickled.
"""


def _hashed(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that enter the hash, as plain JSON; computed once for each value."""
    key = id(value)
    known = _KNOWN.get(key)
    if known is not None and known[0]() is value:
        return known[1]
    out: dict[str, Any] = {}
    cls: Any = type(value)
    for name, hint, is_later, default in _fields(cls):
        content = getattr(value, name)
        if not (is_later and content == default):
            out[name] = _plain(content, hint)
    _KNOWN[key] = weakref.ref(value, lambda reference: _forget(key, reference)), out
    return out


def _forget(key: int, reference: weakref.ref[Any]) -> None:
    """Drop the entry of a value that is gone, unless a new value has taken its place."""
    known = _KNOWN.get(key)
    if known is not None and known[0] is reference:
        del _KNOWN[key]


def _plain(value: Any, hint: Any) -> Any:
    if hint is float:
        return float(value)
    if value is None or isinstance(value, (str, int, float)):  # most values are, so they come first
        return value
    if isinstance(value, (tuple, list)):
        part = typing.get_args(hint)[0]
        return [_plain(item, part) for item in value]
    return dict(value) if isinstance(value, Mapping) else _hashed(value)


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


@functools.cache
def _fields(cls: Any) -> list[tuple[str, Any, bool, Any]]:
    """Name, type hint, whether it came later, and default of each field of a dataclass."""
    hints = _hints(cls)
    return [(f.name, hints[f.name], bool(f.metadata.get("later")), f.default) for f in dataclasses.fields(cls)]


# --- From JSON -------------------------------------------------------------------------------------------------------


def _build(cls: Any, value: Mapping[str, Any]) -> Any:
    hints = _hints(cls)
    if unknown := set(value) - set(hints):
        raise ValueError(f"{cls.__name__} has no field {sorted(unknown)[0]!r}; known: {', '.join(hints)}")
    return cls(**{name: _value(hints[name], item) for name, item in value.items()})


def _value(hint: Any, item: Any) -> Any:
    if isinstance(hint, types.UnionType):
        if item is None:
            return None
        return _value(next(option for option in typing.get_args(hint) if option is not type(None)), item)
    if dataclasses.is_dataclass(hint):
        return _build(hint, item)
    if typing.get_origin(hint) is tuple:
        return tuple(_value(typing.get_args(hint)[0], part) for part in item)
    return float(item) if hint is float else item


def check_revisions(spec: Spec) -> None:
    """`ValueError` when this code computes other numbers than the spec was planned with."""
    planned = {"augment": spec.augment.revision}
    if isinstance(spec, PretrainSpec):
        planned[spec.method.name] = spec.method.revision
        if spec.average:
            planned["average"] = spec.average.revision
    else:
        planned[spec.loss.name] = spec.loss.revision
    for name, revision in planned.items():
        if revision != REVISIONS[name]:
            raise ValueError(
                f"the run was planned with revision {revision} of {name}, this code has {REVISIONS[name]}; "
                "launch the grid again to plan it again"
            )

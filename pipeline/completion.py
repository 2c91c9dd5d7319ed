"""Print what completes the words of cass-pipeline in a shell.

eval "$(cass-pipeline completion bash)"      in ~/.bashrc
eval "$(cass-pipeline completion zsh)"       in ~/.zshrc, after compinit

The script holds every command and flag of this version, so that completing starts no Python; print it again after an
update.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import shlex
from collections.abc import Sequence

from pipeline.cli import flags
from pipeline.core.console import run_command

FUNCTION = "_cass_pipeline"
BODY = """\
{function}() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words="" files=yes
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W {commands} -- "$word"))
        return
    fi
    if [ "${{word#-}}" != "$word" ]; then
        files=""
        case "${{COMP_WORDS[1]}}" in
{flags}
        esac
    else
        case "${{COMP_WORDS[1]}} $before" in
{values}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    if [ -n "$files" ]; then COMPREPLY+=($(compgen -f -- "$word")); fi
}}
complete -o filenames -F {function} cass-pipeline
"""
SHELLS = {"bash": "", "zsh": "autoload -U +X bashcompinit && bashcompinit\n"}


def parser() -> argparse.ArgumentParser:
    out = flags.described("completion", __doc__, quiet=False)
    out.add_argument("shell", choices=tuple(SHELLS), help="the shell that reads what is printed")
    return out


def main() -> int:
    args = flags.given(parser())
    print(SHELLS[args.shell] + script(), end="")
    return 0


def script() -> str:
    """The function that completes, from the parsers of all commands."""
    parsers = {name: importlib.import_module(f"pipeline.{name}").parser() for name in command_names()}
    values, options = [], []
    for name, command in parsers.items():
        options.append(_case(name, [text for action in command._actions for text in _long(action)]))
        for action in command._actions:
            before = " | ".join(shlex.quote(f"{name} {text}") for text in action.option_strings or [name])
            if choices := _choices(action):
                values.append(_case(before, choices, files=action.choices is None, quoted=True))
    commands = shlex.quote(" ".join(parsers))
    texts = {"values": "\n".join(values), "flags": "\n".join(options)}
    return BODY.format(function=FUNCTION, commands=commands, **texts)


def _case(pattern: str, words: Sequence[str], *, files: bool = True, quoted: bool = False) -> str:
    """A line of `case`: the words that complete, and whether files do too."""
    chosen = pattern if quoted else shlex.quote(pattern)
    return f"            {chosen}) words={shlex.quote(' '.join(words))}{'' if files else ' files='} ;;"


def _long(action: argparse.Action) -> list[str]:
    return [text for text in action.option_strings if text.startswith("--")]


def command_names() -> list[str]:
    """The modules that are commands, sorted."""
    import pipeline

    return sorted(
        each.name for each in pkgutil.iter_modules(pipeline.__path__) if each.name[0] != "_" and not each.ispkg
    )


def _choices(action: argparse.Action) -> Sequence[str]:
    """The words that may follow a flag; none where anything may."""
    from pipeline.runs import cluster
    from pipeline.study.names import known_grids

    if "--grid" in action.option_strings:
        return known_grids()
    if "--cluster" in action.option_strings:
        return sorted(path.stem for path in cluster.FOLDER.glob("*.toml"))
    return [str(choice) for choice in action.choices or ()]


if __name__ == "__main__":
    run_command(main)

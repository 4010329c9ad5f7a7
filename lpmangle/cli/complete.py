"""What a shell offers on TAB, where it is neither a file nor one of a few fixed words."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from lpmangle.xen.versions import NEWEST, OLDEST

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def suffixes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [word for word in ("buildid", "buildid:", "name", "text:") if word.startswith(incomplete)]


def xen_versions(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    versions = [f"{OLDEST[0]}.{minor}" for minor in range(OLDEST[1], NEWEST[1] + 1)]
    return [version for version in versions if version.startswith(incomplete)]


def command_words(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """For `build -- COMMAND...`: a command, then files."""
    from click.shell_completion import CompletionItem  # only for shells

    if ctx.params.get(param.name or "") or "/" in incomplete:
        return [CompletionItem(incomplete, type="file")]
    return [CompletionItem(name) for name in sorted(set(_commands(incomplete or "livepatch-build")))]


def _commands(begin: str) -> Iterator[str]:
    import glob  # only for shells, here and below

    for folder in os.environ.get("PATH", "").split(os.pathsep):
        for path in glob.iglob(os.path.join(glob.escape(folder or "."), glob.escape(begin) + "*")):
            if os.access(path, os.X_OK) and os.path.isfile(path):
                yield os.path.basename(path)


def list_files(incomplete: str) -> "list[CompletionItem]":
    """For @FILE, which shells do not know."""
    import glob

    from click.shell_completion import CompletionItem

    paths = sorted(glob.iglob(glob.escape(incomplete[1:]) + "*"))
    return [CompletionItem(f"@{path}{'/' if os.path.isdir(path) else ''}") for path in paths]

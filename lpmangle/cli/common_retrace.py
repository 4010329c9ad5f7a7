"""The common call of retrace, read without click: loading click takes longer than many a log."""

from collections.abc import Iterable, Sequence

from lpmangle.cli.commands import RETRACE, SOURCE_OPTION, SOURCE_VARIABLE, are_plain, split, values
from lpmangle.system.records import NamedTuple

_ANNOTATE, _SOURCE_LINES, _JSON = "--annotate", "--source-lines", "--json"
_DEBUG_FILE, _OUTPUT = "--debug-file", ("-o", "--output")


class RetraceCall(NamedTuple):
    """What the words mean, by the names of the arguments and options; `words` are the sources."""

    paths: tuple[str, ...]
    words: tuple[str, ...]
    annotate: bool
    source_lines: bool
    debug_files: tuple[str, ...]
    output: str | None
    as_json: bool


def read(words: Sequence[str], environment: Iterable[str]) -> RetraceCall | None:
    """What a command line means, if it is that call; `environment` has the names of the variables."""
    if words[:1] != [RETRACE] or not are_plain(words, environment, apart=(SOURCE_VARIABLE,)):
        return None
    found = split(words[1:], (_ANNOTATE, _SOURCE_LINES, _JSON), (*SOURCE_OPTION, _DEBUG_FILE, *_OUTPUT))
    if found is None:
        return None
    paths, options = found
    flags = {name for name, _ in options}
    return RetraceCall(
        paths=tuple(paths),
        words=values(options, *SOURCE_OPTION),
        annotate=_ANNOTATE in flags,
        source_lines=_SOURCE_LINES in flags,
        debug_files=values(options, _DEBUG_FILE),
        output=(None, *values(options, *_OUTPUT))[-1],
        as_json=_JSON in flags,
    )

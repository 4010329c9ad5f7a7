"""The common call of query, names and sources, read without click: loading click takes longer than a look-up.

As in `common_call`, only calls that are certainly right are read here, and click reads everything else.
"""

from collections.abc import Iterable, Sequence

from lpmangle.cli.commands import QUERY
from lpmangle.cli.common_call import VARIABLES
from lpmangle.system.records import NamedTuple

TEXT, JSON = "text", "json"
FORMATS = (TEXT, JSON, "objcopy")
_SOURCE, _FORMAT = "--manifest", "--format"
_WITH_VALUE = {"-m": _SOURCE, _SOURCE: _SOURCE, _FORMAT: _FORMAT}
# The sources' own variable, which is not a setting of the command (`store.open`).
_SOURCES_VARIABLE = "LPMANGLE_MANIFESTS"


class CommonQuery(NamedTuple):
    """What the words mean."""

    symbols: tuple[str, ...]
    sources: tuple[str, ...]
    form: str


def read(words: Sequence[str], environment: Iterable[str]) -> CommonQuery | None:
    """What a command line means, if it is that call; `environment` has the names of the variables."""
    variables = [name for name in environment if name.startswith(VARIABLES) and name != _SOURCES_VARIABLE]
    if variables or words[:1] != [QUERY] or not all(map(str.isprintable, words)):
        return None
    waiting = list(reversed(words[1:]))
    symbols: list[str] = []
    sources: list[str] = []
    form, as_json = TEXT, False
    while waiting:
        word = waiting.pop()
        if not word:
            return None
        if not word.startswith("-"):
            symbols.append(word)
            continue
        if word == "--json":
            as_json = True
            continue
        name, equals, value = word.partition("=")
        kind = _WITH_VALUE.get(name)
        if kind is None or (equals and not name.startswith("--")):
            return None
        if not equals:
            value = waiting.pop() if waiting else ""
        if not value or value.startswith("-") or (kind == _FORMAT and value not in FORMATS):
            return None
        if kind == _FORMAT:
            form = value
        else:
            sources.append(value)
    return CommonQuery(tuple(symbols), tuple(sources), JSON if as_json else form) if symbols else None

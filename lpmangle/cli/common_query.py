"""The common call of query, names and sources, read without click: loading click takes longer than a look-up."""

from collections.abc import Iterable, Sequence

from lpmangle.cli.commands import QUERY, are_plain, split
from lpmangle.system.records import NamedTuple

TEXT, JSON = "text", "json"
FORMATS = (TEXT, JSON, "objcopy")
_SOURCES, _FORMAT, _JSON = ("-m", "--manifest"), "--format", "--json"
# The sources' own variable, which is not a setting of the command (`store.open`).
_SOURCES_VARIABLE = "LPMANGLE_MANIFESTS"


class CommonQuery(NamedTuple):
    """What the words mean."""

    symbols: tuple[str, ...]
    sources: tuple[str, ...]
    form: str


def read(words: Sequence[str], environment: Iterable[str]) -> CommonQuery | None:
    """What a command line means, if it is that call; `environment` has the names of the variables."""
    if words[:1] != [QUERY] or not are_plain(words, environment, apart=(_SOURCES_VARIABLE,)):
        return None
    found = split(words[1:], (_JSON,), (*_SOURCES, _FORMAT))
    if found is None:
        return None
    symbols, options = found
    sources: list[str] = []
    form = TEXT
    for name, value in options:
        if name in _SOURCES:
            sources.append(value)
        elif name == _FORMAT:
            if value not in FORMATS:
                return None
            form = value
    if (_JSON, "") in options:
        form = JSON
    return CommonQuery(tuple(symbols), tuple(sources), form) if symbols else None

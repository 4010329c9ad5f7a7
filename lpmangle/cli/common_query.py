"""The common call of query, names and sources, read without click: loading click takes longer than a look-up."""

from collections.abc import Iterable, Sequence

from lpmangle.cli.commands import QUERY, SOURCE_OPTION, SOURCE_VARIABLE, are_plain, split, values
from lpmangle.system.records import NamedTuple

TEXT, JSON = "text", "json"
FORMATS = (TEXT, JSON, "objcopy")
_FORMAT, _JSON = "--format", "--json"


class CommonQuery(NamedTuple):
    """What the words mean."""

    symbols: tuple[str, ...]
    sources: tuple[str, ...]
    form: str


def read(words: Sequence[str], environment: Iterable[str]) -> CommonQuery | None:
    """What a command line means, if it is that call; `environment` has the names of the variables."""
    if words[:1] != [QUERY] or not are_plain(words, environment, apart=(SOURCE_VARIABLE,)):
        return None
    found = split(words[1:], (_JSON,), (*SOURCE_OPTION, _FORMAT))
    if found is None:
        return None
    symbols, options = found
    form = TEXT
    for value in values(options, _FORMAT):
        if value not in FORMATS:
            return None
        form = value
    if (_JSON, "") in options:
        form = JSON
    return CommonQuery(tuple(symbols), values(options, *SOURCE_OPTION), form) if symbols else None

"""Symbols looked up in manifests, in either direction."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from lpmangle.manifest.read import FunctionNameRecord, Manifest, ReferenceRecord, SymbolRecord
from lpmangle.manifest.search import find, find_borrowed, wanted
from lpmangle.store.open import open_sources

T = TypeVar("T")


class Answer(NamedTuple):
    """The symbols that were found, each with its manifest, and the words for which nothing was found.

    `borrowed` are the undefined symbols and functions to replace that have names of payloads below.
    """

    matches: list[tuple[Manifest, SymbolRecord]]
    borrowed: list[tuple[Manifest, ReferenceRecord | FunctionNameRecord]]
    missing: list[str]


def query(symbols: Sequence[str], sources: Sequence[str]) -> Answer:
    """Look up each of `symbols`, as in `lpmangle query`, in `sources`, words as for `-m`.

    The default are those of LPMANGLE_MANIFESTS and DEBUGINFOD_URLS. Raises LpmangleError for a source that cannot be
    read.
    """
    opened = open_sources(sources)
    answer = Answer([], [], [])
    for word in symbols:
        manifests = [found.manifest for found in opened.candidates(word)]
        found = _of_payload(word, [(one, symbol) for one in manifests for symbol in find(one, word)])
        others = _of_payload(word, [(one, entry) for one in manifests for entry in find_borrowed(one, word)])
        answer.matches.extend(match for match in found if len(symbols) == 1 or match not in answer.matches)
        answer.borrowed.extend(match for match in others if match not in answer.borrowed)
        if not (found or others):
            answer.missing.append(word)
    return answer


def _of_payload(word: str, matches: list[tuple[Manifest, T]]) -> list[tuple[Manifest, T]]:
    """Only those of the payload that a trace named with the symbol, if there are any."""
    payload = wanted(word).payload
    return [match for match in matches if match[0].payload == payload] or matches

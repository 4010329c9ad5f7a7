"""The common call, one payload and plain options, read without click: loading click takes longer than mangling.

Only calls that are certainly right are read here. For everything else the answer is None, and click reads the words
again: it alone prints help and errors.
"""

from collections.abc import Iterable, Sequence

from lpmangle.cli.commands import COMMANDS, DEFAULT_COMMAND, HELP
from lpmangle.cli.mangle_one import what_does_not_fit
from lpmangle.cli.mangle_options import CHOICE, FLAG, OPTIONS, OUTPUT, OUTPUT_OR_FOLDER, TEXT, TEXTS, Option
from lpmangle.cli.places import check_output, check_payload
from lpmangle.cli.reply import Wanted
from lpmangle.errors import LpmangleError
from lpmangle.mangle.names import check_naming
from lpmangle.mangle.options import Options, is_note
from lpmangle.system.records import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any

_BY_NAME = {name: option for option in OPTIONS for name in option.names if name.startswith("-")}
# Environment variables that begin like this are click's: settings, and completion for a shell.
VARIABLES = ("LPMANGLE_", "_LPMANGLE_")


class CommonCall(NamedTuple):
    """What the words mean."""

    payload: str
    options: Options
    wanted: Wanted


def read(words: Sequence[str], environment: Iterable[str]) -> CommonCall | None:
    """What a command line means, if it is the common call; `environment` has the names of the variables."""
    try:
        return _read(words, environment)
    except LpmangleError:
        return None


def _read(words: Sequence[str], environment: Iterable[str]) -> CommonCall | None:
    if any(name.startswith(VARIABLES) for name in environment) or not all(map(str.isprintable, words)):
        return None
    waiting = list(reversed(words[words[:1] == [DEFAULT_COMMAND] :]))
    given: dict[str, Any] = {}
    payload = ""
    while waiting:
        word = waiting.pop()
        if not word.startswith("-"):
            if not word or payload or word.startswith("@") or word == HELP or word in COMMANDS:
                return None
            payload = word
            continue
        name, equals, value = word.partition("=")
        option = _BY_NAME.get(name)
        if option is None or (equals and (option.kind == FLAG or not name.startswith("--"))):
            return None
        if option.kind == FLAG:
            given[option.parameter] = True
            continue
        if not equals:
            value = waiting.pop() if waiting else ""
        if not _is_sound(option, value):
            return None
        before = given.get(option.parameter, ())
        given[option.parameter] = (*before, value) if option.kind == TEXTS else value
    return _call(payload, given)


def _is_sound(option: Option, value: str) -> bool:
    """Whether click would certainly accept the value. Raises WordError for a place that cannot be written to."""
    if not value or value.startswith("-"):
        return False
    if option.kind in (OUTPUT, OUTPUT_OR_FOLDER):
        check_output(value, folders=option.kind == OUTPUT_OR_FOLDER)
        return True
    return option.kind in (TEXT, TEXTS) or (option.kind == CHOICE and value in option.choices)


def _call(payload: str, given: "dict[str, Any]") -> CommonCall | None:
    wanted = Wanted(**{name: given.pop(name) for name in Wanted._fields if name in given})
    given.pop("fail_fast", None)  # there is no other payload
    if wanted.verbose:  # says where each option comes from, which click knows
        return None
    if not given.keys() <= set(Options._fields):
        return None
    options = Options(**given)
    if not all(map(is_note, options.note)):
        return None
    check_payload(payload, or_command=True)
    check_naming(options.suffix, options.template)
    return None if what_does_not_fit(payload, options) else CommonCall(payload, options, wanted)

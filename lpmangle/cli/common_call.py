"""The common call, one payload and plain options, read without click: loading click takes longer than mangling."""

from lpmangle.cli.commands import COMMANDS, DEFAULT_COMMAND, HELP, are_plain, split
from lpmangle.cli.mangle_one import what_does_not_fit
from lpmangle.cli.mangle_options import CHOICE, FLAG, OPTIONS, OUTPUT, OUTPUT_OR_FOLDER, TEXT, TEXTS, Option
from lpmangle.cli.places import check_output, check_payload
from lpmangle.cli.reply import Wanted
from lpmangle.errors import LpmangleError
from lpmangle.mangle.names import check_naming
from lpmangle.mangle.options import Options, is_note
from lpmangle.system.light import Iterable, Sequence
from lpmangle.system.records import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any

_BY_NAME = {name: option for option in OPTIONS for name in option.names if name.startswith("-")}
_FLAGS = {name for name, option in _BY_NAME.items() if option.kind == FLAG}
_VALUED = _BY_NAME.keys() - _FLAGS


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
    if not are_plain(words, environment):
        return None
    found = split(words[words[:1] == [DEFAULT_COMMAND] :], _FLAGS, _VALUED)
    if found is None:
        return None
    arguments, options = found
    if len(arguments) > 1 or any(word.startswith("@") or word == HELP or word in COMMANDS for word in arguments):
        return None
    given: dict[str, Any] = {}
    for name, value in options:
        option = _BY_NAME[name]
        if option.kind == FLAG:
            given[option.parameter] = True
            continue
        if not _is_sound(option, value):
            return None
        before = given.get(option.parameter, ())
        given[option.parameter] = (*before, value) if option.kind == TEXTS else value
    return _call(arguments[0] if arguments else "", given)


def _is_sound(option: Option, value: str) -> bool:
    """Whether click would certainly accept the value. Raises WordError for a place that cannot be written to."""
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

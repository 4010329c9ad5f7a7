"""What takes the place of collections.abc, contextlib, functools and signal is or does the same."""

import collections.abc
import contextlib
import functools
import signal
from collections.abc import Callable
from typing import Any

import pytest

from lpmangle.system import light

SUPPRESSED = [(ValueError,), (LookupError, OSError), ()]
RAISED = [None, ValueError, KeyError, FileNotFoundError, KeyboardInterrupt]


def steps(
    suppress: Callable[..., Any], errors: tuple[type[Exception], ...], raised: type[BaseException] | None
) -> list[str]:
    done = []
    try:
        with suppress(*errors):
            if raised:
                raise raised("text")
            done.append("to its end")
        done.append("behind it")
    except BaseException as error:
        done.append(repr(error))
    return done


@pytest.mark.parametrize("errors", SUPPRESSED)
@pytest.mark.parametrize("raised", RAISED)
def test_suppress(errors: tuple[type[Exception], ...], raised: type[BaseException] | None) -> None:
    assert steps(light.suppress, errors, raised) == steps(contextlib.suppress, errors, raised)


def test_types_of_collections() -> None:
    names = [name for name in light.__all__ if name[0].isupper()]
    assert "Iterable" in names
    for name in names:
        assert getattr(light, name) is getattr(collections.abc, name)


@pytest.mark.parametrize("kind", [light.cached_property, functools.cached_property])
def test_cached_property(kind: Callable[..., Any]) -> None:
    class Counter:
        """How often it was computed."""

        computed = 0

        @kind
        def value(self) -> int:
            """Its docstring."""
            self.computed += 1
            if self.computed == 1:
                raise ValueError("the first time")
            return self.computed

    one, other = Counter(), Counter()
    with pytest.raises(ValueError, match="the first time"):  # an error is not kept
        _ = one.value
    assert [one.value, one.value, one.computed] == [2, 2, 2]
    assert other.computed == 0
    assert vars(Counter)["value"].__doc__ == "Its docstring."
    assert Counter.value is vars(Counter)["value"]


def test_signal() -> None:
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIG_DFL", "SIG_IGN", "SIG_BLOCK", "SIG_SETMASK", "default_int_handler")
    assert [getattr(light.signal, name) for name in names] == [getattr(signal, name) for name in names]

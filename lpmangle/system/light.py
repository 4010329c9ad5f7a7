"""What collections.abc, contextlib, functools and signal have, for the modules that every call loads.

Those four, with what they load (collections, enum, types), take a quarter of a short run. To mypy these are the
standard library's own.
"""

from lpmangle.system.records import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
    from contextlib import suppress
    from functools import cached_property
else:
    # What Python has loaded anyway; signal makes enumerations of its numbers, and collections.abc loads collections.
    import _signal as signal
    from _collections_abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence

    class suppress:
        """Ends the block without an error if it is one of these."""

        def __init__(self, *errors):
            self._errors = errors

        def __enter__(self):
            pass

        def __exit__(self, kind, error, traceback):
            return kind is not None and issubclass(kind, self._errors)

    class cached_property:
        """Computed at its first use, and then an attribute."""

        def __init__(self, compute):
            self._compute = compute
            self.__doc__ = compute.__doc__

        def __set_name__(self, owner, name):
            self._name = name

        def __get__(self, instance, owner=None):
            if instance is None:
                return self
            value = instance.__dict__[self._name] = self._compute(instance)
            return value


__all__ = [
    "Callable",
    "Collection",
    "Container",
    "Iterable",
    "Iterator",
    "Mapping",
    "Sequence",
    "cached_property",
    "signal",
    "suppress",
]

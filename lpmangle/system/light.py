"""suppress, cached_property and signal as the standard library has them, for the modules that every call loads.

contextlib, functools and signal, with enum and types, which they load, take a sixth of a short run. To mypy these are
the standard library's own.
"""

from lpmangle.system.records import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from contextlib import suppress
    from functools import cached_property
else:
    import _signal as signal  # what Python has loaded anyway; signal makes enumerations of its numbers

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


__all__ = ["cached_property", "signal", "suppress"]

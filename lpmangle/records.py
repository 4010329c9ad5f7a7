"""NamedTuple and TYPE_CHECKING as typing has them, for the modules that every call loads.

Importing typing takes as long as mangling a payload. To mypy these are typing's own.
"""

from operator import itemgetter

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:

    class NamedTuple(tuple):
        """A tuple whose items have names: the annotations of a subclass, with what they are set to as defaults."""

        __slots__ = ()

        def __init_subclass__(cls):
            cls._fields = cls.__match_args__ = tuple(cls.__annotations__)
            cls._field_defaults = {name: vars(cls)[name] for name in cls._fields if name in vars(cls)}
            for at, name in enumerate(cls._fields):
                setattr(cls, name, property(itemgetter(at)))

        def __new__(cls, *values, **named):
            rest = cls._fields[len(values) :]
            if rest or named:
                items = cls._field_defaults | named
                if not named.keys() <= set(rest) or not items.keys() >= set(rest):
                    raise TypeError(f"{cls.__name__} needs {', '.join(cls._fields)}")
                values += tuple([items[name] for name in rest])
            elif len(values) > len(cls._fields):
                raise TypeError(f"{cls.__name__} has only {', '.join(cls._fields)}")
            return tuple.__new__(cls, values)

        @classmethod
        def _make(cls, values):
            made = tuple.__new__(cls, values)
            return made if len(made) == len(cls._fields) else cls(*values)

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **named):
            return type(self)(**(self._asdict() | named))

        def __repr__(self):
            return f"{type(self).__name__}({', '.join(f'{name}={item!r}' for name, item in self._asdict().items())})"

        def __getnewargs__(self):  # for pickle and copy
            return tuple(self)

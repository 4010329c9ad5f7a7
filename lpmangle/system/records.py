"""NamedTuple and TYPE_CHECKING as typing has them, for the modules that every call loads.

Importing typing takes as long as mangling a payload. To mypy these are typing's own.
"""

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:
    from _operator import itemgetter  # what operator loads

    class _Type(type):
        """That of NamedTuple and its subclasses: a direct one gets fields, none has room for other attributes."""

        def __new__(cls, name, bases, attributes):
            made = super().__new__(cls, name, bases, {"__slots__": ()} | attributes)
            if bases[0].__base__ is tuple:
                made._fields = made.__match_args__ = tuple(made.__annotations__)
                made._field_defaults = {field: attributes[field] for field in made._fields if field in attributes}
                for at, field in enumerate(made._fields):
                    setattr(made, field, property(itemgetter(at)))
            return made

    class NamedTuple(tuple, metaclass=_Type):
        """A tuple whose items have names: the annotations of a subclass, with what they are set to as defaults."""

        def __new__(cls, *values, **named):
            rest = cls._fields[len(values) :]
            if rest or named:
                items = cls._field_defaults | named
                if not named.keys() <= set(rest) or not items.keys() >= set(rest):
                    raise TypeError(f"{cls.__name__} needs {', '.join(cls._fields)}")
                values += tuple([items[name] for name in rest])
            return cls._make(values)

        @classmethod
        def _make(cls, values):
            made = tuple.__new__(cls, values)
            if len(made) != len(cls._fields):
                raise TypeError(f"{cls.__name__} has {', '.join(cls._fields)}, and not {len(made)} items")
            return made

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **named):
            return type(self)(**(self._asdict() | named))

        def __repr__(self):
            return f"{type(self).__name__}({', '.join(f'{name}={item!r}' for name, item in self._asdict().items())})"

        def __getnewargs__(self):  # for pickle and copy
            return tuple(self)

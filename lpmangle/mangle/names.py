"""How a new name is made: the forms of a suffix, the template, and the limit of 126 bytes."""

import os

from lpmangle.errors import NamingError, PayloadError, counted
from lpmangle.system.light import Callable, Iterator, Sequence, cached_property
from lpmangle.xen.abi import MAX_NAME

DEFAULT_SUFFIX = "buildid"
DEFAULT_TEMPLATE = "{symbol}_{suffix}"
MIN_DIGITS = 7
# The least that each field of a template keeps when a name is shortened: head, digest and tail.
MIN_FIELD = 32
DIGEST_DIGITS = 12

_FIELDS = ("symbol", "file", "name", "suffix")


def resolve_suffix(spec: str, build_id: bytes | None, stem: str) -> str:
    """The text that `spec` stands for.

    `buildid` and `buildid:N` take the payload's build-id (all, or the first N >= 7 hex digits), `name` takes `stem`,
    the payload's file name without its ending, `text:STRING` is STRING. Raises NamingError for a bad one, PayloadError
    where the payload has no such suffix.
    """
    kind, colon, value = spec.partition(":")
    if kind == "text" and colon:
        suffix = value
    elif spec == "name":
        suffix = stem
    elif kind == "buildid":
        digits = _digits(value, spec) if colon else None
        if build_id is None:
            raise PayloadError(
                "the payload has no build-id (.note.gnu.build-id) to take a suffix from",
                hint="link it with --build-id=sha1, or use --suffix name or --suffix text:STRING",
            )
        suffix = build_id.hex()
        if len(suffix) < MIN_DIGITS:
            raise PayloadError(
                f"its build-id has only {len(suffix)} digits ({suffix}), which are not unique",
                hint="link it with --build-id=sha1, or use --suffix name or --suffix text:STRING",
            )
        if digits and digits > len(suffix):
            raise PayloadError(f"--suffix {spec}: the build-id has only {counted(len(suffix), 'digit')}")
        suffix = suffix[:digits]
    else:
        raise NamingError(
            f"--suffix {spec!r} is not one of buildid, buildid:N, name, text:STRING",
            hint=f"for a suffix of your own use --suffix text:{spec}",
        )
    if not suffix or not _is_visible(suffix) or "#" in suffix:
        raise (NamingError if kind == "text" else PayloadError)(
            f"suffix {suffix!r} cannot be part of a symbol name",
            hint="a suffix is one or more printable ASCII characters without blanks and without '#'",
        )
    return suffix


def check_naming(suffix: str, template: str) -> None:
    """Raise NamingError for a suffix or a template that cannot work for any payload.

    The payload's build-id and file name are not known yet, and are assumed to be valid.
    """
    try:
        text = resolve_suffix(suffix, bytes(MAX_NAME), "payload")
        Namer(template, text if suffix.startswith("text:") else text[:MIN_DIGITS])
    except PayloadError as error:
        raise NamingError(error.message, hint=error.hint) from None


def _digits(value: str, spec: str) -> int:
    if not (value.isascii() and value.isdigit()) or len(value) > 4 or int(value) < MIN_DIGITS:
        raise NamingError(f"--suffix {spec}: N must be a number, at least {MIN_DIGITS}: fewer digits are not unique")
    return int(value)


def stem_of(path: str) -> str:
    """The name by which a payload is uploaded: its file name without the ending."""
    return os.path.splitext(os.path.basename(path))[0]


class Namer:
    """Makes new names from old ones with one template and one suffix. The same input gives the same name."""

    def __init__(self, template: str, suffix: str) -> None:
        """Raises NamingError for an invalid template, PayloadError if it leaves no room for a name."""
        fields = []
        pattern = ""  # the template with the suffix filled in, as a %-format for the name's fields
        self._parts: list[tuple[str, str]] = []  # the same, as texts and the fields behind them
        for text, field in _parse_template(template):
            literal = text + suffix if field == "suffix" else text
            pattern += literal.replace("%", "%%")
            if field:
                fields.append(field)
            if field in ("symbol", "file", "name"):
                pattern += "%b"
            self._parts.append((literal, field))
        if sorted(fields) not in (
            ["suffix", "symbol"],
            ["name", "suffix"],
            ["file", "name", "suffix"],
        ):
            raise NamingError(
                f"template {template!r} must contain {{suffix}} and {{symbol}} or {{name}}, each once",
                hint=f"the default is {DEFAULT_TEMPLATE}",
            )
        fields.remove("suffix")
        self._fields = fields
        self._pattern = pattern.encode()
        self._before, _, self._after = (self._pattern % b"\0").partition(b"\0") if fields == ["symbol"] else (b"",) * 3
        self._room = MAX_NAME - len(self._pattern % tuple(b"" for _ in fields))
        if self._room < MIN_FIELD * len(fields):
            raise PayloadError(
                f"suffix {suffix!r} leaves {max(self._room, 0)} of Xen's {MAX_NAME} bytes for the name itself",
                hint="use a shorter suffix, such as --suffix buildid:12",
            )

    def rename(self, symbol: bytes) -> bytes:
        """The new name of `symbol`, at most 126 bytes; a longer one is shortened in its middle, never in its suffix."""
        values = [field_of(symbol, field) for field in self._fields]
        excess = sum(map(len, values)) - self._room
        if excess > 0:
            import hashlib  # slow to load, and few names are so long

            digest = hashlib.sha256(symbol).hexdigest()[:DIGEST_DIGITS].encode()
            # The longer field is shortened first, down to its least; then the other one.
            for index in sorted(range(len(values)), key=lambda index: -len(values[index])):
                size = max(len(values[index]) - excess, MIN_FIELD)
                if size < len(values[index]):
                    excess -= len(values[index]) - size
                    values[index] = shorten(values[index], size, digest)
        return self._pattern % tuple(values)

    def rename_all(self, symbols: Sequence[bytes]) -> list[bytes]:
        """The same for many."""
        if self.keeps_whole(symbols):
            return [self._before + symbol + self._after for symbol in symbols]
        return list(map(self.rename, symbols))

    def keeps_whole(self, symbols: Sequence[bytes]) -> bool:
        """Whether each new name holds all of its old one: then those of different symbols are different."""
        return self._fields == ["symbol"] and max(map(len, symbols), default=0) <= self._room

    def carries(self, symbol: bytes) -> bool:
        """Whether `symbol` looks like a name that this template and suffix have made."""
        return self._shape(symbol) is not None

    @cached_property
    def _shape(self) -> Callable[[bytes], object]:
        """Matches what the template can have made."""
        import re  # slow to load, and few files have names that already contain the suffix

        wild = {"symbol": ".+", "file": ".*", "name": ".+"}
        shape = "".join(re.escape(text) + wild.get(field, "") for text, field in self._parts)
        return re.compile(shape.encode(), re.DOTALL).fullmatch


def _parse_template(template: str) -> Iterator[tuple[str, str]]:
    """Pairs of literal text and the field after it (empty at the end)."""
    text, *parts = template.split("{")
    fields = [part.partition("}") for part in parts]
    texts = [text, *(rest for _, _, rest in fields)]
    sound = all(brace and field in _FIELDS for field, brace, _ in fields)
    if not sound or not all(_is_visible(text) and "}" not in text for text in texts):
        raise NamingError(
            f"template {template!r} may contain only printable ASCII without blanks, and fields",
            hint="the fields are {symbol}, or {file} and {name}, and {suffix}",
        )
    yield from zip(texts, [*(field for field, _, _ in fields), ""], strict=True)


def _is_visible(text: str) -> bool:
    """Whether it is printable ASCII without blanks."""
    return text.isascii() and text.isprintable() and " " not in text


def field_of(symbol: bytes, field: str) -> bytes:
    """The `symbol`, `file` or `name` part of a name; the file is everything before the last '#', if there is one."""
    if field == "symbol":
        return symbol
    file, _, name = symbol.rpartition(b"#")
    return file if field == "file" else name


def shorten(text: bytes, size: int, digest: bytes) -> bytes:
    """At most `size` bytes of `text`: its head, ~digest~ and its tail; UTF-8 characters stay whole."""
    room = size - len(digest) - 2
    head = text[: (room + 1) // 2].decode("utf-8", "ignore").encode()
    tail = text[len(text) - room // 2 :].decode("utf-8", "ignore").encode()
    return head + b"~" + digest + b"~" + tail

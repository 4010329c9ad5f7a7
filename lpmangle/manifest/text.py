"""JSON as json.dumps writes it, for texts that rarely need escapes: json is slow to load."""

from lpmangle.system.light import Mapping

# Bytes that need no escape in JSON: printable ASCII without quote and backslash.
_PLAIN = bytes(set(range(0x20, 0x7F)) - set(b'"\\'))


def is_plain(content: bytes, separator: bytes = b"") -> bool:
    """Whether text that consists of bytes of `content`, but for the `separator`, needs no escapes in JSON."""
    return not content.translate(None, _PLAIN + separator)


def quoted(text: str) -> str:
    """A JSON string, in ASCII."""
    if is_plain(text.encode("utf-8", "surrogatepass")):
        return f'"{text}"'
    from json.encoder import encode_basestring_ascii

    return encode_basestring_ascii(text)


def indented(value: object, margin: str = "\n") -> str:
    """The same as json.dumps(value, indent=2), for the types in a manifest; `margin` comes before its last line."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, Mapping):
        first, last = "{}"
        items = [f"{quoted(name)}: {indented(item, margin + '  ')}" for name, item in value.items()]
    elif isinstance(value, list | tuple):
        first, last = "[]"
        items = [indented(item, margin + "  ") for item in value]
    else:
        return "null" if value is None else str(value).lower()  # a number, True, False
    between = f"{margin}  "
    return f"{first}{between}{f',{between}'.join(items)}{margin}{last}" if items else first + last

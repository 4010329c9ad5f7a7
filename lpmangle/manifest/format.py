"""What every reader and writer of manifests knows: name, version, place, and how to recognise one."""

FORMAT = "lpmangle-manifest"
VERSION = "1.0"
ENDING = ".manifest.json"


def path_beside(payload_path: str) -> str:
    """Where the manifest of a payload is kept."""
    return payload_path + ENDING


def begins(start: bytes) -> bool:
    """Whether a file that begins with `start` is a manifest."""
    return start.startswith(b"{") and FORMAT.encode() in start


def payload_name(stem: str) -> str:
    """The name of a payload in its manifest: that of its file, as text."""
    return stem.encode("utf-8", "backslashreplace").decode()


def payload_in(start: bytes) -> str | None:
    """The payload's name in a manifest that begins with `start`; None if it is not there."""
    import json  # both are slow to load, and it is rare that a manifest could belong to another payload
    import re

    found = re.search(rb'^  "payload": ("(?:[^"\\]|\\.)*"),$', start, re.MULTILINE)
    name: str | None = json.loads(found[1]) if found else None
    return name

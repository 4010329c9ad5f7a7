"""Versions of Xen: how they are written, and which are known here."""

import re

from lpmangle.errors import NamingError

Version = tuple[int, int, int]

# The versions whose sources were read; 99 means a branch's newest release, as in parse_version.
OLDEST: Version = (4, 14, 0)
NEWEST: Version = (4, 22, 99)


def parse_version(text: str) -> Version:
    """`4.17`, `4.17.7` or what hypervisors call themselves (`4.17.7-pre`, `4.17.7+13-g2445b30a44`).

    Without a point release, it is the newest of that branch. Raises NamingError.
    """
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?(?![.\d])", text)
    if not match:
        raise NamingError(f"{text!r} is not a version of Xen, such as 4.17 or 4.17.7")
    major, minor, point = match.groups()
    return int(major), int(minor), int(point) if point else 99


def version_text(version: Version) -> str:
    """As for parse_version."""
    major, minor, point = version
    return f"{major}.{minor}.{point}" if point < 99 else f"{major}.{minor}"


def nearest(version: Version) -> Version:
    """The version itself if it is known here, else the nearest known one."""
    return min(max(version, OLDEST), NEWEST)

"""Versions of Xen: how they are written, and which are known here."""

import re

from lpmangle.errors import NamingError

Version = tuple[int, int, int]

OLDEST: Version = (4, 14, 0)
NEWEST: Version = (4, 21, 99)  # the branch, as parse_version reads it


def parse_version(text: str) -> Version:
    """`4.17`, `4.17.7` or what hypervisors call themselves (`4.17.7-pre`, `4.17.7+13-g2445b30a44`).

    Without a point release the newest of that branch is meant. Raises NamingError.
    """
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?(?![.\d])", text)
    if not match:
        raise NamingError(f"{text!r} is not a version of Xen, such as 4.17 or 4.17.7")
    major, minor, point = match.groups()
    return int(major), int(minor), int(point) if point else 99

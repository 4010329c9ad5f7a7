"""What --version says: our version, and those that an answer may depend on."""

import os
import sys

from lpmangle import __version__
from lpmangle.xen.versions import NEWEST, OLDEST, version_text


def version_lines() -> str:
    """The first line is for programs."""
    python = ".".join(map(str, sys.version_info[:3]))
    xens = f"{OLDEST[0]}.{OLDEST[1]} to {version_text(NEWEST)}"
    return f"lpmangle {__version__}\nPython {python}, lief {_installed('lief') or '(not installed)'}, Xen {xens}"


def _installed(package: str) -> str | None:
    """The version of a package, from the name of its metadata folder (PyPA: Recording installed projects).

    importlib.metadata says the same but takes as long as all the rest.
    """
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            if name.startswith(f"{package}-") and name.endswith(".dist-info"):
                return name[len(package) + 1 : -len(".dist-info")]
    return None

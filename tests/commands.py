"""lpmangle as its users call it, and the files that its documentation speaks of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def lpmangle(*args: str | Path, cwd: Path | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command; its exit code must be `code`, and no traceback may show."""
    done = subprocess.run(
        [sys.executable, "-m", "lpmangle", *map(str, args)], cwd=cwd, capture_output=True, text=True, errors="replace"
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stdout + done.stderr
    return done

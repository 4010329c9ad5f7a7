"""lpmangle as its users have it: its wheel and what requirements.lock names, nothing else, with bytecode."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
_VENV = ROOT / ".cache" / "bench"
PYTHON, LPMANGLE = (_VENV / "bin" / name for name in ("python", "lpmangle"))


def install() -> None:
    """Make the venv that PYTHON and LPMANGLE are in, with this checkout as it is now. Exits if that fails."""
    shutil.rmtree(_VENV, ignore_errors=True)
    uv = [sys.executable, "-m", "uv"]
    into: list[str | Path] = [*uv, "pip", "install", "-q", "--compile-bytecode", "--python", PYTHON]
    with tempfile.TemporaryDirectory() as folder:
        _run(*uv, "venv", "-q", "--python", sys.executable, _VENV)
        _run(*into, "--require-hashes", "-r", "requirements.lock")
        _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder)
        _run(*into, "--no-deps", *Path(folder).glob("*.whl"))


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")

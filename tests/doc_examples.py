"""The console examples of the documentation: run them, compare, or write their real output (--update).

In a ```console block a line that begins with `$ ` is run by bash, all blocks of a file in one folder that holds copies
of the examples; what follows is its output as a terminal shows it, and `(exit code N)` if N is not 0.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/debugging.md", "docs/json.md", "docs/compare.md", "docs/stacked.md")
BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)


def rendered(page: str) -> str:
    """The page's text with the output that its commands really have."""
    text = (ROOT / page).read_text()
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "100"}
    with tempfile.TemporaryDirectory() as folder:
        examples = ROOT / "examples"
        payloads = (*examples.glob("*.livepatch"), *examples.glob("stacked/*.livepatch"))
        for example in (*payloads, examples / "vendor" / "sign-payload"):
            shutil.copy(example, folder)

        def run(block: re.Match[str]) -> str:
            commands = [line[2:] for line in block[0].splitlines() if line.startswith("$ ")]
            return "".join(_run(command, folder, environment) for command in commands)

        return BLOCK.sub(run, text)


def _run(command: str, folder: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    code = f"(exit code {done.returncode})\n" if done.returncode else ""
    return f"$ {command}\n{done.stdout}{code}"


if __name__ == "__main__":
    if sys.argv[1:] != ["--update"]:
        sys.exit("usage: python tests/doc_examples.py --update")
    for name in PAGES:
        (ROOT / name).write_text(rendered(name))

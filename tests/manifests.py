"""Manifests of payloads that were never built, for tests that need many."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def manifest(payload: str, names: dict[str, str], **fields: Any) -> dict[str, Any]:
    """A manifest as lpmangle writes it; `names` maps originals to new names. The build-id is made from `payload`."""
    build_id = hashlib.sha1(payload.encode()).hexdigest()
    content = {"sha256": "0" * 64, "size": 1}
    return {
        "format": "lpmangle-manifest",
        "version": "1.0",
        "payload": payload,
        "machine": "x86_64",
        "build_id": build_id,
        "depends": None,
        "xen_depends": None,
        "input": content,
        "output": content,
        "string_table": {"section": 1, "offset": 64, "size": 1},
        "suffix": build_id,
        "options": {"suffix": "buildid", "template": "{symbol}_{suffix}", "scope": "local", "only": [], "keep": []},
        "symbols": [
            {
                "index": index,
                "original": original,
                "name": name,
                "section": ".text",
                "value": 16 * index,
                "size": 16,
                "type": "FUNC",
                "binding": "LOCAL",
                "st_name": index,
            }
            for index, (original, name) in enumerate(names.items(), 1)
        ],
        **fields,
    }


def plain(payload: str, *originals: str) -> dict[str, Any]:
    """A manifest with the default suffix and template."""
    build_id = hashlib.sha1(payload.encode()).hexdigest()
    return manifest(payload, {original: f"{original}_{build_id}" for original in originals})


def write(folder: Path, *several: dict[str, Any]) -> Path:
    """Put manifests into a folder, each under its payload's name and build-id."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in several:
        name = f"{one['payload'].replace('/', '_')}-{one['build_id'][:8]}.livepatch.manifest.json"
        (folder / name).write_text(json.dumps(one))
    return folder

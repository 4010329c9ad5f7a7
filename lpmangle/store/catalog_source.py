"""A catalog as a source."""

from collections.abc import Iterable, Iterator

from lpmangle.store.catalog import Catalog
from lpmangle.store.source import Found, Shape


class CatalogSource:
    """Look-ups are SQL; only the manifests that fit are unpacked."""

    def __init__(self, path: str) -> None:
        """Raises CatalogError."""
        self._path = path
        self._catalog = Catalog(path)

    def shapes(self) -> Iterable[Shape]:
        return [Shape(template, suffix) for template, suffix in self._catalog.shapes()]

    def with_suffix(self, suffix: str) -> Iterable[Found]:
        return self._found(self._catalog.with_suffix(suffix))

    def with_build_id(self, build_id: str) -> Iterable[Found]:
        return self._found(self._catalog.with_build_id(build_id))

    def candidates(self, pattern: str) -> Iterable[Found]:
        return self._found(self._catalog.candidates(pattern))

    def debug_files(self, build_id: str) -> Iterable[str]:
        return []

    def _found(self, rows: Iterable[tuple[str, bytes]]) -> Iterator[Found]:
        return (Found(f"{self._path}: {payload}", text) for payload, text in rows)

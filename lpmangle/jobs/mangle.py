"""The main job from file to file: read, decide, apply, prove, write."""

import os

from lpmangle import elf
from lpmangle.errors import FileError, LpmangleError, MangledError, StrictError, about
from lpmangle.jobs.outputs import check_places, manifest_place, output_place
from lpmangle.jobs.result import Result, add_warnings
from lpmangle.mangle.apply import apply, prove
from lpmangle.mangle.decide import make_plan
from lpmangle.mangle.names import stem_of
from lpmangle.mangle.options import Options
from lpmangle.manifest import format as manifest_format
from lpmangle.manifest import write
from lpmangle.system import files, writing
from lpmangle.system.files import sha256
from lpmangle.system.light import Callable, Iterable, Sequence, suppress
from lpmangle.system.records import TYPE_CHECKING, NamedTuple
from lpmangle.xen.payload import Payload
from lpmangle.xen.signature import signed

if TYPE_CHECKING:
    from lpmangle.jobs.against import Against

# After this many readings, give up on a payload that other processes keep replacing.
ATTEMPTS = 3


class Request(NamedTuple):
    """One payload, and what to do with it.

    `against` says where the payloads below it are (`below`). `links` are other paths of the payload (hard links); if it
    is mangled in place, they lead to the result, too.
    """

    path: str
    options: Options
    against: "Against | None"
    links: Sequence[str] = ()


def mangle_file(path: str, options: Options) -> Result:
    """Mangle the payload at `path` as `options` say, and write its manifest. A symbolic link is followed to its target.

        result = mangle_file("fbab204.livepatch", Options(suffix="name", embed=True))
        result.status                       # "mangled"
        result.plan.renames                 # {9: b"x86_emulate.c#_get_fpu_fbab204", ...}, by symbol number
        result.warnings                     # what still can go wrong, in words

    Raises LpmangleError: NamingError for a suffix or template that does not make valid names, ElfError and PayloadError
    for files that are not payloads, PlanError where new names would clash, FileError. Then all files are as they were.
    """
    return mangle(Request(path, options, below(options)))


def below(options: Options) -> "Against | None":
    """Where to find the payloads that others are put on, for all payloads of a run; None without --against.

    Nothing is opened yet.
    """
    if not options.against:
        return None
    from lpmangle.jobs.against import Against  # loads msgspec

    return Against(options.against, options.xen or "")


def mangle(request: Request) -> Result:
    """The same for one of several payloads. Raises LpmangleError."""

    def work() -> Result:
        prepared = prepare(request, files.read(request.path))
        if not request.options.dry_run:
            prepared.write()
        return prepared.result

    return until_unchanged(work)


def until_unchanged(work: Callable[[], Result]) -> Result:
    """Do `work`, and again if another process has mangled the payload meanwhile."""
    for _ in range(ATTEMPTS - 1):
        with suppress(writing.ChangedError):
            return work()
    return work()


class Prepared:
    """A payload that is mangled and proven; `data` is its new content. Nothing is written yet."""

    def __init__(
        self,
        request: Request,
        file: files.File,
        result: Result,
        original: bytes,
        data: bytes | bytearray,
        text: bytes | None,
    ) -> None:
        """`file` is what was read, `original` what was mangled; `text` is the manifest if it is already made."""
        self.result = result
        self.original = original
        self.data = data
        self._request = request
        self._file = file
        self._text = text

    def write(self, data: bytes | bytearray | None = None, catalog: str | None = None) -> None:
        """Write what was asked for, everything or nothing; the manifest also into `catalog`. Raises LpmangleError.

        `data` is written in place of the payload if something was done to it since, such as signing.
        """
        request, result, file = self._request, self.result, self._file
        options = request.options
        data = self.data if data is None else data
        in_place = result.output == file.path
        check_places(result, named=options.manifest is not None)
        outputs = [_rule(request, result)] if options.depfile else []
        if result.manifest_path in (result.output, file.path):
            raise FileError("the manifest would replace the payload", path=result.manifest_path)
        manifest = self._manifest()
        if manifest is None:
            result.warnings.append(
                f"has no manifest that fits ({result.manifest_path}): without it the original names cannot be recovered"
            )
            _refuse_warnings(result)
        elif catalog:
            manifest = _in_one_piece(manifest)
        if manifest and not (result.plan.already and in_place and (not options.manifest or _is_there(manifest))):
            outputs.append(manifest)
        if not in_place or data is not file.data:
            links = request.links if in_place else ()
            outputs.append(writing.Output(result.output, (data,), like=file.state, links=links))
        if options.if_changed:
            outputs = [output for output in map(_in_one_piece, outputs) if not _is_there(output)]
            result.unchanged = not in_place and result.output not in [output.path for output in outputs]
        if catalog and manifest:
            from lpmangle.store.catalog_writing import adding  # loads sqlite3
            from lpmangle.store.source import Found  # loads msgspec

            with adding(catalog, Found(manifest.path, b"".join(manifest.pieces))) as commit:
                writing.replace(outputs, file, commit, fit=_fit) if outputs else commit()
        elif outputs:
            writing.replace(outputs, file, fit=_fit)

    def _manifest(self) -> writing.Output | None:
        """None if the payload was already mangled and no manifest fits it."""
        result = self.result
        pieces: Iterable[bytes]
        if self._text:
            pieces = [self._text]
        elif not result.plan.already:
            pieces = _encoded(result, self.data)
        elif (found := _existing_manifest(result, self._file)) is None:
            return None
        else:
            pieces = [found]
        return writing.Output(result.manifest_path, pieces)


def prepare(request: Request, file: files.File, data: bytes | None = None) -> Prepared:
    """Mangle what was read from `request.path`, and prove it; nothing is written. Raises LpmangleError.

    `data` is mangled in place of the file's content if something was done to it since, such as stripping. A payload
    that was mangled before, in another way, is restored first if its original can be recovered.
    """
    try:
        prepared = _prepare(request, file, file.data if data is None else data)
    except MangledError:
        if data is not None or (again := _from_original(request, file)) is None:
            raise
        prepared = again
    if request.options.embed and prepared.result.plan.already:
        from lpmangle.manifest import embed

        if not prepared.result.view.section_named(embed.SECTION):
            if again := _from_original(request, file):
                prepared = again
            else:
                prepared.result.warnings.append(
                    "its manifest is not embedded, because the payload cannot be restored first"
                )
    if prepared.result.plan.already and not _has_notes(prepared.result, file):
        if again := _from_original(request, file):
            prepared = again
        else:
            prepared.result.warnings.append(
                "its manifest keeps its old notes, because the payload cannot be restored first"
            )
    _refuse_warnings(prepared.result)
    return prepared


def _has_notes(result: Result, file: files.File) -> bool:
    """Whether the manifest of a payload that was mangled before has the notes that were asked for, if any."""
    options = result.plan.options
    if not options.note and not options.source:
        return True
    text = _existing_manifest(result, file)
    if text is None:
        return True  # which is a warning of its own
    from lpmangle.manifest.read import decode  # loads msgspec

    manifest = decode(text)
    notes = [f"{note.key}={note.value}" for note in manifest.notes]
    digest = None if result.source is None else sha256(result.source)
    return notes == list(dict.fromkeys(options.note)) and digest == (manifest.source and manifest.source.sha256)


def _from_original(request: Request, file: files.File) -> Prepared | None:
    """Mangle the original of the payload; None if that cannot be recovered."""
    from lpmangle.jobs.restore import original_of  # loads msgspec

    original = original_of(file, request.path, request.options.manifest)
    if original is None:
        return None
    signatures = signed(elf.parse(file.data))
    if signatures and not request.options.force:
        raise signatures.refusal()
    prepared = _prepare(request, file, original)
    prepared.result.restored = True
    if signatures and not signed(elf.parse(original)):
        prepared.result.warnings += signatures.dropped()
    return prepared


def _refuse_warnings(result: Result) -> None:
    if result.plan.options.strict and result.warnings:
        raise StrictError(
            f"with --strict no warning is allowed: {'; '.join(result.warnings)}",
            path=result.path,
            hint="nothing was written",
        )


def _prepare(request: Request, file: files.File, data: bytes) -> Prepared:
    options = request.options
    place = output_place(options.output, request.path)
    target = files.resolve(place)
    stem = stem_of(target)
    with about(request.path):
        payload = Payload.parse(data)
        view = payload.elf
        stack = request.against.stack_of(payload) if request.against else None
        plan = make_plan(payload, options, stem, stack)
        # A payload that is not changed keeps its signature.
        signatures = signed(view) if plan.changes else None
        if signatures and not options.force:
            raise signatures.refusal()
        after = apply(payload, plan)
        prove(payload, after, plan.names, plan.function_names)
        manifest_path = manifest_place(options.manifest, target, stem, payload.build_id)
        result = Result(request.path, place, target, stem, manifest_path, payload, plan, stack)
        result.source = files.read(options.source).data if options.source else None
        text = None
        if options.embed:
            from lpmangle.manifest import embed

            if plan.changes:
                text = b"".join(_encoded(result, after, embedded=True))
                after = embed.add(view.moved(bytes(after)), text)
        if signatures:
            result.warnings += signatures.broken()
        add_warnings(result, len(after))
    return Prepared(request, file, result, data, after, text)


def _encoded(result: Result, data: bytes | bytearray, *, embedded: bool = False) -> Iterable[bytes]:
    """The manifest of what was mangled into `data`."""
    return write.encode(
        result.payload, result.plan, data, result.stem, embedded=embedded, stack=result.stack, source=result.source
    )


def _rule(request: Request, result: Result) -> writing.Output:
    """The rule for the output: it is made from the payload, and the files with the names of those below."""
    from lpmangle.jobs.depfile import check_depfile, rule

    options = request.options
    assert options.depfile
    layers = result.stack.layers if result.stack else ()
    sources = [layer.where for layer in layers if os.path.isfile(layer.where)]
    sources += filter(None, (options.xen, options.source))
    target = files.resolve(options.depfile)
    check_depfile(target, result.output, result.manifest_path, request.path, *sources)
    return writing.Output(target, (rule(result.place, request.path, *sources),))


def _in_one_piece(output: writing.Output) -> writing.Output:
    return output._replace(pieces=(b"".join(output.pieces),))


def _is_there(output: writing.Output) -> bool:
    """Whether the file has that content already."""
    try:
        return (files.read(output.path).data,) == output.pieces
    except FileError:
        return False


def _existing_manifest(result: Result, file: files.File) -> bytes | None:
    """The manifest of a payload that was already mangled."""
    from lpmangle.manifest import embed

    if (text := embed.extract(result.view)) is not None:
        return text
    for path in (result.manifest_path, manifest_format.path_beside(file.path)):
        with suppress(LpmangleError):
            data = files.read(writing.fitting(path, lambda other: _fit(file.data, other))).data
            if _fit(file.data, data):  # it may have been signed since
                return data
    return None


def _fit(payload: bytes, text: bytes) -> int:
    from lpmangle.manifest.belongs import fit  # loads msgspec

    return fit(payload, text)

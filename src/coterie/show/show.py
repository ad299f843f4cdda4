"""The one door: a path in, what is there out."""

from pathlib import Path

from coterie.errors import ArtifactError, NotFoundError
from coterie.show.contents import Contents, date
from coterie.show.files import file_kind
from coterie.show.folders import Facts, folder_kind

_SHOWN = 20


def show(path: str | Path) -> Contents:
    r"""Says what a folder or file is, and its key facts; checksums are not verified.

    A folder that is none of Coterie's but holds some of them is a ``"folder"`` with a line each.

    Args:
        path: A data set, run, model, study, index, export, analysis or folder of recommendations;
            or a file that Coterie wrote.

    Raises:
        NotFoundError: if nothing is there.
        ArtifactError: if it is damaged, or nothing that Coterie knows.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "ease.toml"
        ...     _ = file.write_text('[model]\nname = "ease"\nl2 = 300.0\n')
        ...     print(show(file).kind, show(file).facts["model"]["l2"])
        configuration 300.0
    """
    path = Path(path)
    if not path.exists():
        raise NotFoundError(f"{path}: must be there, nothing was found; check the path.")
    found = (folder_kind(path) or _several(path)) if path.is_dir() else file_kind(path)
    if found is None:
        raise ArtifactError(f"{path}: {_stranger(path)}; check the path.")
    kind, facts = found
    return Contents(kind, path, {**facts, "bytes": _bytes(path), "modified": _modified(path)})


def _several(path: Path) -> tuple[str, Facts] | None:
    inside = {one.name: folder_kind(one) for one in sorted(path.iterdir()) if one.is_dir()}
    ours = {name: found for name, found in inside.items() if found is not None}
    if not ours:
        return None
    lines = {name: _in_short(*found) for name, found in list(ours.items())[:_SHOWN]}
    more = len(ours) - len(lines)
    return "folder", {"contains": lines, "and_more": more or None}


def _in_short(kind: str, facts: Facts) -> str:
    state = str(facts.get("state", "")).partition(";")[0]
    notes = [
        str(facts[name]) for name in ("model",) if kind != "recommendations" and facts.get(name)
    ]
    return ", ".join([kind, *notes, *([state] if state else [])])


def _stranger(path: Path) -> str:
    expected = "must be a data set, run, model, study or another result of Coterie's"
    if not path.is_dir():
        return f"{expected}, found a file of another kind"
    names = sorted(one.name for one in path.iterdir())
    listed = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return f"{expected}, found {f'a folder with {listed}' if names else 'an empty folder'}"


def _files(path: Path) -> list[Path]:
    return [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]


def _bytes(path: Path) -> int:
    return sum(one.stat().st_size for one in _files(path))


def _modified(path: Path) -> str:
    return date(max((one.stat().st_mtime for one in _files(path)), default=path.stat().st_mtime))

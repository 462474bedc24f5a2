"""A point's rows for other tools: one Parquet or CSV file per table, exact, and a note that says what they are.

Values are complete, nothing is masked: whoever exports does so on purpose and on record. Types that Parquet would
damage are the text PostgreSQL prints for them; ``schema.json`` names the exact type of every column, so that both forms
can be read back without loss.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from snapshots.errors import Refused
from snapshots.model import RecoveryPoint, TableManifest
from snapshots.points import reading
from snapshots.points.errors import StoreUnreachable, TableMissing
from snapshots.store.store import Store

Form = Literal["parquet", "csv"]
SCHEMA = "schema.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """One written file."""

    table: str
    file: Path
    rows: int
    bytes: int


def export(
    store: Store,
    point: RecoveryPoint,
    folder: Path,
    *,
    form: Form = "parquet",
    tables: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Exported, ...]:
    """Write the point's ``tables`` (default: all) into ``folder``, one file each, and ``schema.json``.

    Memory: a few chunks. Files are 0600 and appear when they are complete. Raises :class:`Refused` when a file is there
    already, :class:`TableMissing` for a table the point does not hold, and :class:`Damaged` for an unsound object.
    """
    if absent := set(tables) - {t.name for t in point.tables}:
        raise TableMissing(f"Point {point.id} does not hold {', '.join(sorted(absent))}; choose another point.")
    chosen = [t for t in point.tables if not tables or t.name in tables]
    targets = {t.name: folder / f"{t.name.replace('/', '_')}.{form}" for t in chosen}
    for path in (*targets.values(), folder / SCHEMA):
        if path.exists():
            raise Refused(f"{path} is there already; give another folder.")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = []
        for manifest in chosen:
            say(f"{manifest.name}: {manifest.rows} rows")
            rows = _write(store, point.app, manifest, targets[manifest.name], form)
            path = targets[manifest.name]
            made.append(Exported(table=manifest.name, file=path, rows=rows, bytes=path.stat().st_size))
        text = json.dumps(_described(point, made, form), indent=1)
        _whole(folder / SCHEMA, lambda file: file.write(text.encode()))
    except OSError as error:
        raise StoreUnreachable(
            f"Cannot write to {folder} ({error.strerror}); check its rights and free space.", retryable=False
        ) from error
    return tuple(made)


def _write(store: Store, app: str, manifest: TableManifest, path: Path, form: Form) -> int:
    import pyarrow as pa

    from snapshots.points import chunks

    stored = chunks.stored(manifest.columns)
    layout = chunks.schema(stored)
    rows = 0

    def parquet(file: Any) -> None:
        nonlocal rows
        import pyarrow.parquet as pq

        with pq.ParquetWriter(file, layout, compression="zstd") as writer:
            for batch in reading.batches(store, manifest, app=app):
                writer.write_table(pa.Table.from_batches([batch]))
                rows += batch.num_rows

    def csv(file: Any) -> None:
        nonlocal rows
        names = ",".join('"' + c.name.replace('"', '""') + '"' for c in stored)
        file.write(f"{names}\n".encode())
        for batch in reading.batches(store, manifest, app=app):
            file.write(chunks.csv_blocks(batch, stored))
            rows += batch.num_rows

    _whole(path, parquet if form == "parquet" else csv)
    return rows


def _whole(path: Path, fill: Callable[[Any], object]) -> None:
    """Under its name only when it is complete."""
    part = path.with_name(f".{path.name}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _described(point: RecoveryPoint, made: Sequence[Exported], form: Form) -> dict[str, Any]:
    files = {m.table: m for m in made}
    return {
        "app": point.app,
        "point": point.id,
        "taken_at": point.taken_at.isoformat(),
        "format": form,
        "tables": {
            t.name: {
                "file": files[t.name].file.name,
                "rows": files[t.name].rows,
                "key": list(t.key),
                "columns": {c.name: c.type for c in t.columns if not c.generated},
            }
            for t in point.tables
            if t.name in files
        },
    }

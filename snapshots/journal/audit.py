"""Whether the journal saw everything: a recovery point plus the journal's images must give what is live.

By fingerprint where the point has one: one scan of the table, no row of the point is read. By rows elsewhere, and to
name what was missed: rows that the database knows to be newer than the point, rows of the point that are gone, and
keys in the journal; for each of them the point's row plus the new images minus the old ones must be the live row. What
is left was changed without the journal: with its triggers off or as a replica, by a TRUNCATE it did not see, or while
its twin was lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg import Connection, sql

from snapshots import position
from snapshots.capture import shape, touched
from snapshots.errors import Refused
from snapshots.journal import fingerprint
from snapshots.journal import shape as journal_shape
from snapshots.model import ColumnInfo, Position, RecoveryPoint, TableManifest, TableSpec
from snapshots.points import chunks, reading
from snapshots.store.store import Store

KEYS_NAMED = 50
"""At most so many keys of each kind are named per table; all are counted."""

Kind = Literal["insert", "update", "delete", "rows"]
"""``rows``: the table has no key, or the rows that differ cannot be told."""

_TOUCHED, _GONE, _ASKED, _POINT, _OFF = (
    sql.Identifier("pg_temp", f"rj_audit_{name}") for name in ("touched", "gone", "asked", "point", "off")
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Missed:
    """Changes of one table that the journal does not explain. ``since`` and ``until`` bound when they were made."""

    table: str
    kind: Kind
    rows: int
    keys: tuple[tuple[str, ...], ...]
    """Text forms; the first ones by order."""
    since: datetime
    until: datetime
    method: Literal["fingerprint", "rows"]
    """How it was found; rows are always named by rows."""

    def __str__(self) -> str:
        return f"{self.table}: {self.rows} x {self.kind} without the journal"


def audit(conn: Connection[Any], point: RecoveryPoint, store: Store, specs: Sequence[TableSpec]) -> tuple[Missed, ...]:
    """What of ``specs`` differs from ``point`` plus the journal (role: one that reads the tables and the journal and
    may make temporary tables; its transaction is ended). Changes nothing; see :func:`record`.

    Raises :class:`Refused` when that cannot be told: no journal, a journal that does not reach back to the point, a
    position of another server, a table that the point does not hold.
    """
    conn.rollback()
    conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    chunks.settle(conn)
    try:
        position.require_same_server(conn, point.position)
        row = conn.execute("SELECT clock_timestamp()").fetchone()
        manifests = {m.name: m for m in point.tables}
        known = journal_shape.stored(conn)
        foreign = journal_shape.carried_over(conn)
        found: list[Missed] = []
        for spec in specs:
            manifest, twin = manifests.get(spec.name), known.get(spec.name)
            if manifest is None:
                raise Refused(f"Point {point.id} does not hold table {spec.name}; take a new point.")
            if twin is None:
                raise Refused(f"Table {spec.name} is not journaled; run `reinstate journal install`.")
            if spec.name in foreign:
                raise Refused(
                    f"The journal of {spec.name} is of another server, or of a later time of this one; run `reinstate"
                    " journal install`, then take a new point."
                )
            if twin.complete_since > point.position.at:
                raise Refused(
                    f"The journal of {spec.name} is complete only since {twin.complete_since.isoformat()}, point"
                    f" {point.id} is older; audit against a newer one."
                )
            now = row[0] if row else point.taken_at
            table = _Table(conn=conn, point=point, store=store, manifest=manifest, twin=twin, now=now)
            found += table.missed()
        return tuple(found)
    except psycopg.errors.InsufficientPrivilege as error:
        cause = str(error).splitlines()[0]
        raise Refused(f"The audit may not read all it needs: {cause}; run the SQL of `reinstate roles`.") from None
    except psycopg.errors.DataError as error:
        raise Refused(
            f"Rows of point {point.id} no longer fit their table ({error.sqlstate}); take a new point."
        ) from None
    finally:
        conn.rollback()


def record(conn: Connection[Any], missed: Sequence[Missed]) -> None:
    """Record a gap for each table, so that nothing is undone across it (role: recoverer or installer; commits)."""
    for table in sorted({m.table for m in missed}):
        mine = [m for m in missed if m.table == table]
        detail = ", ".join(f"{m.rows} {m.kind}" for m in mine) + " not in the journal"
        conn.execute(
            "SELECT reinstate.note_missed(%s, %s, %s, %s)",
            (table, detail, min(m.since for m in mine), max(m.until for m in mine)),
        )
    conn.commit()


class _Table:
    """One table under audit, in one snapshot."""

    def __init__(
        self,
        *,
        conn: Connection[Any],
        point: RecoveryPoint,
        store: Store,
        manifest: TableManifest,
        twin: journal_shape.Stored,
        now: datetime,
    ) -> None:
        self.conn, self.point, self.store, self.manifest = conn, point, store, manifest
        self.since: Position = point.position
        self.until = now
        self.key = tuple(manifest.key)
        live = {c.name: c for c in chunks.stored(shape.columns(conn, manifest.name))}
        kept = {c.name for c in twin.columns}
        # What was added or renamed since is in one of them only; what changed its type is compared as text.
        self.columns = tuple(
            c if live[c.name].type == c.type else ColumnInfo(
                name=c.name, type="text", not_null=False, generated=False, identity=""
            )
            for c in chunks.stored(manifest.columns)
            if c.name in live and c.name in kept
        )  # fmt: skip
        self.same_shape = tuple(live.values()) == chunks.stored(manifest.columns) and kept == set(live)
        self.live = shape.source(conn, manifest.name)
        self.twin: sql.Identifier | None = sql.Identifier("reinstate", twin.twin)
        if conn.execute("SELECT to_regclass(%s)", (self.twin.as_string(conn),)).fetchone() == (None,):
            self.twin = None
        if not set(self.key) <= {c.name for c in chunks.stored(manifest.columns) if live.get(c.name) == c}:
            self.key = ()

    def missed(self) -> list[Missed]:
        for made in (_TOUCHED, _GONE, _ASKED, _POINT, _OFF):
            self.conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(made))
        method: Literal["fingerprint", "rows"] = "rows"
        if (differs := self._by_fingerprint()) is not None:
            if not differs:
                return []
            method = "fingerprint"
        found = self._by_rows(method)
        if found or differs is None:
            return found
        # No row is newer than the point and yet the sums differ: something wrote below the database.
        return [self._missed("rows", len(differs), (), method)]

    def _by_fingerprint(self) -> tuple[int, ...] | None:
        """Buckets that differ; ``None`` where the point has no fingerprint that can be compared with live."""
        manifest, conn = self.manifest, self.conn
        if not manifest.fingerprint or not self.same_shape:
            return None
        head, then = fingerprint.read(manifest.fingerprint)
        buckets = fingerprint.BUCKETS
        if head != fingerprint.tag(conn, manifest.columns, manifest.key, buckets):
            return None
        source = sql.SQL("{} AS t").format(self.live)
        now = fingerprint.sums(conn, source, "t", manifest.columns, manifest.key, buckets=buckets)
        net: fingerprint.Sums = {}
        if self.twin is not None:
            net = fingerprint.sums(
                conn,
                sql.SQL("{} AS t WHERE {}").format(self.twin, self._after()),
                "t",
                manifest.columns,
                manifest.key,
                buckets=buckets,
                sign=_sign("t"),
            )
        return fingerprint.differing(fingerprint.added(then, net), now)

    def _by_rows(self, method: Literal["fingerprint", "rows"]) -> list[Missed]:
        if not self.key:
            return self._without_key(method)
        self._asked()
        self._load_point(self._asked_keys())
        same = touched.same(self.key, "k", "t")
        count = self._balance(live=sql.SQL("{} AS t JOIN {} AS k ON {}").format(self.live, _ASKED, same), keys=self.key)
        if not count:
            return []
        found = []
        kinds: tuple[tuple[Kind, str], ...] = (
            ("insert", "rj_known < rj_there"),
            ("delete", "rj_known > rj_there"),
            ("update", "rj_known = rj_there"),
        )
        listed = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier("o", k)) for k in self.key)
        for kind, condition in kinds:
            rows = self.conn.execute(
                sql.SQL("SELECT count(*) OVER (), {} FROM {} AS o WHERE {} ORDER BY {} LIMIT {}").format(
                    listed, _OFF, sql.SQL(condition), touched.names(self.key, "o"), sql.Literal(KEYS_NAMED)
                )
            ).fetchall()
            if rows:
                found.append(self._missed(kind, rows[0][0], tuple(tuple(r[1:]) for r in rows), method))
        return found

    def _without_key(self, method: Literal["fingerprint", "rows"]) -> list[Missed]:
        """Rows as a bag: how many are too many or missing, but not which."""
        self._load_point(None)
        self._balance(live=sql.SQL("{} AS t").format(self.live), keys=())
        row = self.conn.execute(sql.SQL("SELECT coalesce(sum(abs(rj_off)), 0)::bigint FROM {}").format(_OFF)).fetchone()
        return [self._missed("rows", row[0], (), method)] if row and row[0] else []

    def _asked(self) -> None:
        """Every key that may have changed: by its row's transaction number, gone, or named by the journal."""
        conn, manifest = self.conn, self.manifest
        touched.by_rows(conn, manifest, self.since, into=_TOUCHED)
        touched.gone(conn, self.store, manifest, touched=_TOUCHED, into=_GONE, app=self.point.app)
        parts = [sql.SQL("SELECT {} FROM {}").format(touched.names(self.key), t) for t in (_TOUCHED, _GONE)]
        if self.twin is not None:
            parts.append(
                sql.SQL("SELECT {} FROM {} AS t WHERE {}").format(
                    touched.names(self.key, "t"), self.twin, self._after()
                )
            )
        touched.keep(conn, sql.SQL(" UNION ").join(parts), _ASKED)

    def _asked_keys(self) -> Any:
        import pyarrow as pa

        columns = touched.key_columns(self.manifest)
        query = sql.SQL("COPY (SELECT {} FROM {} AS t) TO STDOUT (FORMAT csv)").format(
            chunks.select_list(columns, "t"), _ASKED
        )
        with self.conn.cursor() as cursor, cursor.copy(query) as copy:
            batches = list(chunks.from_csv(copy, columns))
        return pa.Table.from_batches(batches, schema=chunks.schema(columns))

    def _load_point(self, keys: Any) -> None:
        """``_POINT``: the point's rows of these keys (all without), in the live columns' types."""
        names = [c.name for c in self.columns]
        columns = tuple(c for c in chunks.stored(self.manifest.columns) if c.name in names)
        self.conn.execute(
            sql.SQL("CREATE TEMP TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
                _POINT, touched.names(names), self.live
            )
        )
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(_POINT, touched.names(names))
        with self.conn.cursor() as cursor, cursor.copy(statement) as copy:
            for batch in reading.batches(self.store, self.manifest, columns=names, keys=keys, app=self.point.app):
                copy.write(chunks.csv_blocks(batch, columns))
        self.conn.execute(sql.SQL("ANALYZE {}").format(_POINT))

    def _balance(self, *, live: sql.Composable, keys: tuple[str, ...]) -> int:
        """``_OFF``: keys (without any: rows) for which the point's row plus images is not the live row."""
        listed = sql.SQL("").join(sql.SQL("{}, ").format(sql.Identifier("t", k)) for k in keys)
        picked = sql.SQL("").join(sql.SQL("{}, ").format(sql.Identifier(k)) for k in keys)
        digest = sql.SQL("ROW({})::text").format(sql.SQL(", ").join(fingerprint.exact(c, "t") for c in self.columns))
        part = sql.SQL("SELECT {keys}{digest} AS rj_row, {sign} AS rj_n, {there} AS rj_here FROM {source}")
        parts = [
            part.format(keys=listed, digest=digest, sign=s, there=sql.SQL(there), source=source)
            for s, there, source in (
                (sql.SQL("1"), "0", sql.SQL("{} AS t").format(_POINT)),
                (sql.SQL("-1"), "1", live),
                *(
                    [(_sign("t"), "0", sql.SQL("{} AS t WHERE {}").format(self.twin, self._after()))]
                    if self.twin is not None
                    else []
                ),
            )
        ]
        query = sql.SQL(
            "SELECT {group}sum(rj_off) AS rj_off, sum(rj_there) AS rj_there, sum(rj_off + rj_there) AS rj_known FROM ("
            "SELECT {group}rj_row, sum(rj_n) AS rj_off, sum(rj_here) AS rj_there FROM ({parts}) AS b GROUP BY {each}) c"
            " GROUP BY {by} HAVING bool_or(rj_off <> 0)"
        ).format(
            group=picked,
            parts=sql.SQL(" UNION ALL ").join(parts),
            each=sql.SQL("{}rj_row").format(picked),
            by=touched.names(keys) if keys else sql.SQL("rj_row"),
        )
        return touched.keep(self.conn, query, _OFF)

    def _after(self) -> sql.Composed:
        return sql.SQL("({} AND t.rj_side IN ('o', 'n'))").format(
            position.after(self.since, sql.Identifier("t", "rj_xid"))
        )

    def _missed(
        self, kind: Kind, rows: int, keys: tuple[tuple[str, ...], ...], method: Literal["fingerprint", "rows"]
    ) -> Missed:
        return Missed(
            table=self.manifest.name,
            kind=kind,
            rows=rows,
            keys=keys,
            since=self.since.at,
            until=self.until,
            method=method,
        )


def _sign(alias: str) -> sql.Composed:
    return sql.SQL("CASE {} WHEN 'n' THEN 1 ELSE -1 END").format(sql.Identifier(alias, "rj_side"))

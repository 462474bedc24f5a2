"""Who was erased, without saying who: keyed hashes of the rows of a person, and the filter that keeps them out.

The list of an app lies in its store as ``erased/<app>.json``, and once more beside the ledger, so that a copy of the
store from before the erasure does not bring anybody back. It grows by whole entries and holds no value of a person: an
HMAC-SHA256 per row, over table, columns and the exact text of the key, under a secret that is kept apart from it
(``ERASURE_SECRET`` in ``secrets.env``). Without the secret nobody can test a guess; with entries but without the secret
(or with another one) nothing of that table is read at all: :class:`Refused`.

An entry is about everything that was captured *before* it: a manifest says with ``erased`` up to which entry its rows
are honest, so that somebody who comes back later under the same number is kept like anybody else, and so that points
that were rewritten or taken since cost nothing to read.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from psycopg import Connection, sql

from snapshots import position
from snapshots.erasure.rules import Hidden, Rule
from snapshots.errors import Refused
from snapshots.model import RecoveryPoint, TableManifest, UndoSpec
from snapshots.points.errors import Damaged
from snapshots.store.store import Store

FORMAT = 1
SECRET = "ERASURE_SECRET"  # noqa: S105 - the name of a secret, not one
"""Name of the secret in ``secrets.env``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One erasure. ``replaced`` names the objects whose rewritten successors lack the rows: they are to be removed, by
    whoever runs next if need be."""

    id: str
    at: datetime
    by: str
    reason: str
    rules: tuple[Rule, ...]
    replaced: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Guard:
    """What a store needs to honour erasures: the secret, and the folder of the second copy of the list."""

    secret: bytes | None = field(repr=False)
    beside: Path | None
    ask: Callable[[], bytes | None] | None = field(default=None, repr=False)
    """Where to look again for a missing secret: the first erasure may be made by another process than this one."""


def hides(store: Store, app: str, table: str, since: str = "") -> Hidden | None:
    """The filter for rows of ``table`` that were erased after ``since`` (a manifest's ``erased``); ``None``: none were.

    Raises :class:`Refused` when there are some and the secret is missing or another one, and :class:`Damaged` when the
    list is not sound: better nothing than somebody who was erased.
    """
    rules = tuple(r for e in entries(store, app) if e.at.isoformat() > since for r in e.rules if r.table == table)
    if not rules:
        return None
    secret = guard(store).secret
    assert secret is not None  # noqa: S101 - reading the entries has checked it
    return Hidden(app=app, rules=rules, secret=secret)


def images_gone(conn: Connection[Any], spec: UndoSpec) -> dict[str, int]:
    """How many row images of what ``spec`` selects were erased from the journal, by table (any of our roles). Nobody
    can undo them any more; an undo says so with this and goes on with the others. Conditions on rows are not looked at:
    the rows are not there."""
    row = conn.execute("SELECT to_regclass('reinstate.erased') IS NOT NULL").fetchone()
    if row is None or not row[0] or not spec.selects:
        return {}
    tests: list[sql.Composable] = []
    if spec.runs:
        tests.append(
            sql.SQL(
                "(xid = ANY ({}::text[]::xid8[]) OR EXISTS (SELECT FROM unnest({}::text[], {}::text[]) AS r(actor, run)"
                " WHERE r.actor IN ('', e.actor::text) AND r.run = e.run))"
            ).format(
                sql.Literal([str(x) for run in spec.runs for x in run.xids]),
                sql.Literal([run.actor for run in spec.runs]),
                sql.Literal([run.run for run in spec.runs]),
            )
        )
    if spec.xids:
        tests.append(sql.SQL("xid = ANY ({}::text[]::xid8[])").format(sql.Literal([str(x) for x in spec.xids])))
    if spec.actors:
        tests.append(sql.SQL("actor = ANY ({}::name[])").format(sql.Literal(list(spec.actors))))
    if spec.since:
        tests.append(position.after(spec.since, sql.Identifier("xid")))
    if spec.until:
        tests.append(position.visible(spec.until, sql.Identifier("xid")))
    if spec.limited_to:
        tests.append(sql.SQL("table_name = ANY ({}::text[])").format(sql.Literal(list(spec.limited_to))))
    query = sql.SQL("SELECT table_name, sum(images)::bigint FROM reinstate.erased e WHERE {} GROUP BY 1 ORDER BY 1")
    return {r[0]: r[1] for r in conn.execute(query.format(sql.SQL(" AND ").join(tests))).fetchall()}


def honoured(store: Store, app: str) -> str:
    """For ``TableManifest.erased`` of rows read from the live database now: the newest entry; empty without any. Ask
    before reading."""
    known = entries(store, app)
    return known[-1].at.isoformat() if known else ""


def marked(
    store: Store, app: str, manifests: Iterable[TableManifest], base: RecoveryPoint | None
) -> tuple[TableManifest, ...]:
    """The tables of a point being captured with the erasure up to which they are honest: those read from live know all
    of them, those that lean on the chunks of ``base`` no more than it does. While a capture writes nobody erases."""
    mark = honoured(store, app)
    then = {t.name: t for t in base.tables} if base else {}
    made = []
    for table in manifests:
        before = then.get(table.name)
        leans = before is not None and not {c.sha256 for c in before.chunks}.isdisjoint(c.sha256 for c in table.chunks)
        made.append(replace(table, erased=before.erased if before is not None and leans else mark))
    return tuple(made)


def entries(store: Store, app: str) -> tuple[Entry, ...]:
    """The list, oldest first: what the store holds and what lies beside the ledger, as one. Errors as :func:`hides`."""
    known = guard(store)
    merged: dict[str, Entry] = {}
    for where, data in _copies(store, app):
        for entry in _decode(data, known.secret, where):
            merged[entry.id] = entry
    return tuple(sorted(merged.values(), key=lambda e: (e.at, e.id)))


def append(
    store: Store, app: str, *, rules: Iterable[Rule], by: str, reason: str, replaced: Sequence[str], now: datetime
) -> Entry:
    """Add one erasure to both copies of the list, each replaced as a whole. From then on no reader sees the rows.

    The caller holds the app's lease. Raises :class:`Refused` without a secret.
    """
    secret = guard(store).secret
    if secret is None:
        raise Refused(f"store {store.name}: there is no {SECRET} to erase with; run `reinstate erase`, which makes it")
    known = entries(store, app)
    # Entries are told apart by their time, so two of them never share one, whatever the clock does.
    at = max(now.astimezone(UTC), known[-1].at + timedelta(microseconds=1)) if known else now.astimezone(UTC)
    made = Entry(
        id=f"E-{at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}",
        at=at,
        by=by,
        reason=reason,
        rules=tuple(rules),
        replaced=tuple(replaced),
    )
    _write(store, app, (*known, made), secret)
    return made


def mirror(store: Store, app: str) -> None:
    """Bring both copies of the list to all that either of them has."""
    known = guard(store)
    if known.secret is not None and (found := entries(store, app)):
        text = _encode(app, found, known.secret)
        if any(data != text for _, data in _copies(store, app)) or len(list(_copies(store, app))) < 2:
            _write(store, app, found, known.secret)


def guard(store: Store) -> Guard:
    """What the store was opened with; nothing when it was opened by its address alone."""
    known = store.guard if isinstance(store.guard, Guard) else Guard(secret=None, beside=None)
    if known.secret is None and known.ask is not None and (secret := known.ask()) is not None:
        store.guard = known = replace(known, secret=secret)
    return known


def _place(app: str) -> str:
    return f"erased/{app}.json"


def _copies(store: Store, app: str) -> Iterable[tuple[str, bytes]]:
    where = guard(store).beside
    if (data := store.read_object(_place(app))) is not None:
        yield f"{_place(app)} in {store.name}", data
    if where is not None:
        try:
            yield str(where / f"{app}.json"), (where / f"{app}.json").read_bytes()
        except FileNotFoundError:
            return


def _write(store: Store, app: str, known: Sequence[Entry], secret: bytes) -> None:
    text = _encode(app, known, secret)
    beside = guard(store).beside
    if beside is not None:
        # First the copy that no copying of the store can lose.
        Store(str(beside)).replace_object(f"{app}.json", text)
    store.replace_object(_place(app), text)


def _encode(app: str, known: Sequence[Entry], secret: bytes) -> bytes:
    body = [{**asdict(e), "at": e.at.isoformat()} for e in known]
    seal = _seal(secret, app, body)
    return json.dumps({"format": FORMAT, "app": app, "seal": seal, "entries": body}, sort_keys=True, indent=1).encode()


def _seal(secret: bytes, app: str, body: Any) -> str:
    text = json.dumps([app, body], sort_keys=True, separators=(",", ":"))
    return hmac.digest(secret, hashlib.sha256(text.encode()).digest(), "sha256").hex()


def _decode(data: bytes, secret: bytes | None, where: str) -> tuple[Entry, ...]:
    try:
        found = json.loads(data)
        version, app, body, seal = found["format"], found["app"], found["entries"], found["seal"]
        if version != FORMAT:
            raise Refused(f"{where} has format {version!r}; upgrade reinstate to read it.")
        made = tuple(_entry(values) for values in body)
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(
            f"{where} is not a list of erasures; put its copy back, beside the ledger or in the store."
        ) from error
    if made and secret is None:
        raise Refused(f"{where} holds erasures; without {SECRET} nothing is read: put it back into secrets.env.")
    if made and not hmac.compare_digest(_seal(secret or b"", app, body), str(seal)):
        raise Damaged(f"{where} was made with another {SECRET}, or was altered; put back the secret or the list.")
    return made


def _entry(values: Mapping[str, Any]) -> Entry:
    rules = tuple(
        Rule(
            table=r["table"],
            columns=tuple(r["columns"]),
            types=tuple(r["types"]),
            hashes=tuple(r["hashes"]),
            sieve=tuple(r["sieve"]),
            clears=tuple(r["clears"]),
        )
        for r in values["rules"]
    )
    at = datetime.fromisoformat(values["at"])
    return Entry(**{**values, "at": at, "rules": rules, "replaced": tuple(values["replaced"])})

"""Values shared by the modules of this room: positions, tables, journal transactions, undo selections and plans."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """A place in the change journal: which transactions had committed. Membership is by ``pg_visible_in_snapshot``;
    neither a sequence nor a time is a commit boundary. ``at`` is for people."""

    snapshot: str
    """``pg_current_snapshot()::text``."""
    system_id: str
    timeline: int
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class TableSpec:
    """What a data operation must know about one table. ``name`` is ``schema.table``."""

    name: str
    key: tuple[str, ...]
    additive: tuple[str, ...] = ()
    public: tuple[str, ...] = ()
    suppress: tuple[str, ...] = ()
    """The app's triggers that are disabled inside the transaction of a data step."""
    references: tuple[tuple[tuple[str, ...], str, tuple[str, ...]], ...] = ()
    """Relations (columns, parent table, parent columns): the database's foreign keys, then the declared ones."""
    undeclared_triggers: tuple[str, ...] = ()
    """The app's triggers the catalogue says nothing about: a data step with any of them refuses."""


class Attribution(StrEnum):
    EXACT = "exact"
    UNIQUE = "unique"
    AMBIGUOUS = "ambiguous"
    NONE = "none"

    @property
    def certain(self) -> bool:
        """The last two are never undone in silence."""
        return self in (Attribution.EXACT, Attribution.UNIQUE)


@dataclass(frozen=True, kw_only=True, slots=True)
class JournalTx:
    """One transaction as the journal saw it. ``keys`` holds, per table, the text forms of touched keys (at most
    ``KEYS_PER_TX``), for matching with what a run returned; ``ops`` the kinds of writes (I, U, D, T)."""

    xid: int
    actor: str
    run: str | None
    first_at: datetime
    last_at: datetime
    rows: int
    tables: tuple[str, ...]
    keys: dict[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict, compare=False)
    ops: frozenset[str] = field(default=frozenset(), compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRef:
    """A run to be undone: writes tagged ``run`` by ``actor`` (empty: by anybody), and the listed transactions
    (inferred ones)."""

    actor: str
    run: str | None
    xids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """A stretch in which the journal of ``table`` may miss changes (``table`` ``*``: of all)."""

    table: str
    kind: str
    detail: str
    at: datetime
    until: datetime | None
    """``None`` while it lasts."""


class Policy(StrEnum):
    """What to do with a conflict. ``refuse``: do not plan. ``non-conflicting-only``: leave conflicting rows as they
    are, listed. ``keep-later``: later legitimate values win, column by column, listed. ``cascade``: before planning,
    the selection is extended by what cannot stand without it and by suspects (:func:`snapshots.undo.undo.cascade`); a
    conflict that is left then refuses."""

    REFUSE = "refuse"
    NON_CONFLICTING_ONLY = "non-conflicting-only"
    KEEP_LATER = "keep-later"
    CASCADE = "cascade"

    @property
    def refuses(self) -> bool:
        """Whether a blocking conflict stops the plan."""
        return self in (Policy.REFUSE, Policy.CASCADE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Conflict:
    """One row where undo and later work disagree. ``kind``: ``later-same-column`` (a later legitimate value stands;
    not a loss), ``row-gone`` (later deleted legitimately), ``created-then-edited`` (created by an undone run, edited
    by someone whose work is not undone), ``key-taken``, ``referenced`` (a row that stays needs it), ``parent-gone`` (it
    cannot come back: what it references is gone). ``blocking`` ones stop policy ``refuse``."""

    table: str
    key: tuple[str, ...]
    kind: str
    columns: tuple[str, ...]
    blocking: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TableCounts:
    table: str
    delete: int
    update: int
    insert: int
    merged: int
    """Rows on which later legitimate work is kept."""
    table_rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class UndoSpec:
    """The frozen selection of an undo. Rows are recomputed from it under lock at execution, by the same rule.

    A write is selected when it meets all of what is given: it belongs to one of ``runs`` (tag or transaction), to one
    of the transactions ``xids``, to one of the database roles ``actors``; its transaction committed after ``since``
    and by ``until``; its table is one of ``only``; and an image of the changed row, before or after, meets the
    table's condition in ``where`` (SQL over ``r``, written by an operator; it limits the undo to the tables it names
    and those in ``only``). Where nothing of it is given, nothing is selected. ``cancelled`` are transactions that
    count as selected in any case because they already reverted selected ones (an earlier undo by the same recovery),
    so that planning again after an undo yields nothing. ``tables`` are all that the app has: what the undo must know
    about, not what it selects."""

    tables: tuple[TableSpec, ...]
    runs: tuple[RunRef, ...]
    policy: Policy
    cancelled: tuple[int, ...] = ()
    xids: tuple[int, ...] = ()
    actors: tuple[str, ...] = ()
    since: Position | None = None
    until: Position | None = None
    only: tuple[str, ...] = ()
    where: tuple[tuple[str, str], ...] = ()
    """(table, condition)."""
    max_deleted_rows: int = 5_000
    max_deleted_share: float = 0.2
    max_changed_rows: int = 100_000
    drift_rows: int = 200

    @property
    def limited_to(self) -> tuple[str, ...]:
        """The tables whose writes are selected; empty: all."""
        return tuple(sorted({*self.only, *(table for table, _ in self.where)}))

    @property
    def selects(self) -> bool:
        """Whether anything is selected at all."""
        return bool(self.runs or self.xids or self.actors or self.since or self.until or self.limited_to)


@dataclass(frozen=True, kw_only=True, slots=True)
class UndoPreview:
    """What an undo would do now; computed read-only by ``undo.preview`` and again under lock by ``undo.apply``."""

    counts: tuple[TableCounts, ...]
    conflicts: tuple[Conflict, ...]
    first_at: datetime | None
    """First commit of the selection, by the database's clock (journal time of its first write)."""
    position: Position
    problems: tuple[str, ...] = ()
    """Why it must not run (gaps, broken chains, caps, undeclared triggers); empty when it may."""
    conflict_counts: dict[str, int] = field(default_factory=dict)
    """Rows by kind of conflict; complete, whereas ``conflicts`` lists only the first ones."""
    erased: dict[str, int] = field(default_factory=dict)
    """Row images of the selection that were erased with a person, by table: those rows stay as they are."""

    @property
    def empty(self) -> bool:
        return not any(c.delete or c.update or c.insert for c in self.counts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Applied:
    """A row of ``reinstate.applied``: the truth about a data step."""

    recovery_id: str
    step: str
    plan_hash: str
    xid: int
    at: datetime
    detail: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    sha256: str
    rows: int
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnInfo:
    name: str
    type: str
    """Exact, as ``format_type`` prints it."""
    not_null: bool
    generated: bool
    identity: Literal["", "a", "d"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TableManifest:
    """One table of a point: its ``chunks`` with the ``deltas`` applied over them, in order, by key. ``rows`` counts the
    result. Read it with :mod:`snapshots.points.reading`, which knows how."""

    name: str
    columns: tuple[ColumnInfo, ...]
    key: tuple[str, ...]
    rows: int
    chunks: tuple[Chunk, ...]
    deltas: tuple[Chunk, ...] = ()
    """Changes since the chunks were written: Parquet with the stored columns and, first, ``rj_gone`` (bool): the row
    of this key is gone. A later delta wins over an earlier one. Only for tables with a key."""
    method: Literal["full", "journal", "scan"] = "full"
    """How this point found what changed."""
    leaves: tuple[int, ...] = ()
    """Object ids of the relations that held the rows: what was attached later cannot be trusted to be unchanged."""
    fingerprint: tuple[str, ...] = ()
    """Sums of row hashes by bucket at the point's position, where they were asked for; see ``fingerprint.py``."""
    erased: str = ""
    """Up to which erasure its rows are honest, as :func:`erasure.honoured` says; later ones hide rows of it."""
    definition: dict[str, Any] = field(default_factory=dict, repr=False)
    """How the table is made, so that it can be made again: see :mod:`snapshots.restore.definition`. Empty in older
    points."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A piece of the journal of one table, exported with a point: every row image after ``since`` that the point's
    position saw committed, as Parquet with the twin's columns."""

    table: str
    sha256: str
    rows: int
    bytes: int
    since: Position


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowState:
    """Logic half of a point: what production ran (what was saved, of an inactive workflow), and what it leans on.
    Points of earlier versions hold the fields without a default only."""

    workflow: str
    platform_id: str
    active: bool
    version_hash: str
    definition: dict[str, Any] = field(repr=False)
    settings_hash: str = ""
    """Of what the platform keeps per workflow and not per version."""
    platform_version: str | None = None
    author: str | None = None
    entries: tuple[dict[str, str | None], ...] = ()
    """The ways in: ``kind``, ``node``, ``method``, ``path``, ``schedule``."""
    calls: tuple[str, ...] = ()
    """Workflows it starts, as the definition names them."""
    credentials: tuple[str, ...] = ()
    """Credentials it names; never what they hold."""
    saved_hash: str | None = None
    """What was saved beside it and not live, if something was."""
    saved: dict[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecoveryPoint:
    """A manifest. ``verification`` is ``None`` until suites ran on the same snapshot."""

    id: str
    app: str
    taken_at: datetime
    position: Position
    workflows: tuple[WorkflowState, ...]
    in_flight: tuple[str, ...]
    tables: tuple[TableManifest, ...]
    sequences: dict[str, int]
    verification: dict[str, Any] | None = None
    base: str | None = None
    """Id of the point whose chunks this one leans on; each point is complete in itself all the same."""
    segments: tuple[Segment, ...] = ()

    @property
    def verified(self) -> bool:
        return bool(self.verification and self.verification.get("passed"))

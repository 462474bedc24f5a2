"""The ledger's tables, and the triggers that let the database itself refuse to change what was written."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

SCHEMA_VERSION: Final = 1

metadata = sa.MetaData()

_seq = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

entry = sa.Table(
    "ledger_entry",
    metadata,
    sa.Column("seq", _seq, primary_key=True, autoincrement=False),
    # Times as ISO 8601 text: what is hashed is what is stored, to the last digit, in every database.
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("app", sa.Text, nullable=False),
    sa.Column("incident", sa.Text),
    sa.Column("recovery", sa.Text),
    sa.Column("step", sa.Text),
    sa.Column("body", sa.Text, nullable=False),
    # Unique: two entries that follow the same one would be a fork.
    sa.Column("prev_hash", sa.Text, nullable=False, unique=True),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
    sa.Index("ledger_entry_incident", "incident", "seq"),
    sa.Index("ledger_entry_recovery", "recovery", "seq"),
    sa.Index("ledger_entry_kind", "kind", "seq"),
)

meta = sa.Table(
    "ledger_meta",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

lease = sa.Table(
    "ledger_lease",
    metadata,
    sa.Column("app", sa.Text, primary_key=True),
    sa.Column("fencing", _seq, nullable=False),
    sa.Column("holder", sa.Text),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started", sa.Text, nullable=False),
    sa.Column("since", sa.Text, nullable=False),
    sa.Column("until", sa.Text, nullable=False),
)

SQLITE_TRIGGERS: Final[dict[str, str]] = {
    f"{table}_no_{verb.lower()}": f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
    for table in ("ledger_entry", "ledger_meta")
    for verb in ("UPDATE", "DELETE")
} | {
    # INSERT OR REPLACE deletes without firing delete triggers: an insert must be the next entry, or nothing.
    "ledger_entry_in_order": "CREATE TRIGGER ledger_entry_in_order BEFORE INSERT ON ledger_entry "
    "WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM ledger_entry) "
    "OR EXISTS (SELECT 1 FROM ledger_entry e WHERE e.hash = NEW.hash OR e.prev_hash = NEW.prev_hash) "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: not the next entry'); END",
    "ledger_meta_once": "CREATE TRIGGER ledger_meta_once BEFORE INSERT ON ledger_meta "
    "WHEN EXISTS (SELECT 1 FROM ledger_meta m WHERE m.name = NEW.name) "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
}

POSTGRES_FUNCTION: Final = """
CREATE FUNCTION ledger_append_only() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'the ledger is append-only' USING ERRCODE = 'insufficient_privilege';
END $$
"""
POSTGRES_TRIGGERS: Final[dict[str, str]] = {
    f"{table}_no_{name}": f"CREATE TRIGGER {table}_no_{name} BEFORE {verbs} ON {table} "
    f"FOR EACH {each} EXECUTE FUNCTION ledger_append_only()"
    for table in ("ledger_entry", "ledger_meta")
    for name, verbs, each in (("change", "UPDATE OR DELETE", "ROW"), ("truncate", "TRUNCATE", "STATEMENT"))
}

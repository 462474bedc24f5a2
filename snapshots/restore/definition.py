"""How a table is made, as the database describes it: enough to make it again when somebody dropped it.

What :func:`read` returns is plain JSON (for the manifest): the table with its partitions, their columns with exact
types, defaults, generated and identity columns, indexes, constraints, triggers, rules, policies, grants, comments;
the sequences it owns or takes defaults from; the foreign keys of others to it. Texts are PostgreSQL's own
(``pg_get_*def``), with every name qualified. Types and functions that it uses are not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from snapshots.model import TableManifest
from snapshots.points.errors import TableMissing

VERSION = 1

_RELATIONS = """
SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind, c.relpersistence::text AS persistence,
    pg_get_userbyid(c.relowner) AS owner, coalesce(c.reloptions, '{}') AS options, am.amname AS method,
    c.relrowsecurity AS secured, c.relforcerowsecurity AS forced, c.relreplident::text AS replica,
    pn.nspname AS parent_schema, p.relname AS parent, pg_get_expr(c.relpartbound, c.oid) AS bound,
    CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END AS partitioned
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am am ON am.oid = c.relam
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND c.relispartition
LEFT JOIN pg_class p ON p.oid = i.inhparent LEFT JOIN pg_namespace pn ON pn.oid = p.relnamespace
LEFT JOIN pg_partition_tree(%(oid)s::regclass) t ON t.relid = c.oid
WHERE c.oid = %(oid)s OR t.relid IS NOT NULL ORDER BY coalesce(t.level, 0), n.nspname, c.relname
"""
_COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS not_null,
    CASE WHEN a.attcollation <> t.typcollation THEN quote_ident(cn.nspname) || '.' || quote_ident(co.collname) END
        AS collation,
    pg_get_expr(d.adbin, d.adrelid) AS "default", a.attgenerated::text AS generated, a.attidentity::text AS identity,
    CASE WHEN a.attstorage <> t.typstorage THEN a.attstorage::text END AS storage,
    nullif(a.attcompression::text, '') AS compression, nullif(a.attstattarget, -1)::int AS statistics,
    coalesce(a.attoptions, '{}') AS options, s.name AS sequence, s.options AS sequence_options
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN pg_collation co ON co.oid = a.attcollation LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
LEFT JOIN LATERAL (SELECT c.relname AS name, format('INCREMENT %%s MINVALUE %%s MAXVALUE %%s START %%s CACHE %%s%%s',
        q.seqincrement, q.seqmin, q.seqmax, q.seqstart, q.seqcache, CASE WHEN q.seqcycle THEN ' CYCLE' ELSE '' END)
        AS options
    FROM pg_depend e JOIN pg_class c ON c.oid = e.objid AND c.relkind = 'S' JOIN pg_sequence q ON q.seqrelid = c.oid
    WHERE a.attidentity <> '' AND e.classid = 'pg_class'::regclass AND e.refobjid = a.attrelid
        AND e.refobjsubid = a.attnum AND e.deptype = 'i') s ON true
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_INDEXES = """
SELECT c.relname AS name, i.indisunique AS "unique", pg_get_indexdef(i.indexrelid) AS text,
    k.conname AS "constraint", k.contype::text AS kind, pg_get_constraintdef(k.oid) AS definition,
    i.indisclustered AS clustered, i.indisreplident AS replica
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')
WHERE i.indrelid = %s AND i.indislive AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid)
ORDER BY i.indisprimary DESC, c.relname
"""
_CHECKS = """
SELECT conname AS name, pg_get_constraintdef(oid) AS text, convalidated AS valid FROM pg_constraint
WHERE conrelid = %s AND contype = 'c' AND (conislocal AND coninhcount = 0) ORDER BY conname
"""
_FOREIGN = """
SELECT n.nspname AS schema, r.relname AS "table", c.conname AS name, pg_get_constraintdef(c.oid) AS text,
    c.convalidated AS valid, pn.nspname || '.' || p.relname AS parent
FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid JOIN pg_namespace n ON n.oid = r.relnamespace
JOIN pg_class p ON p.oid = c.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
WHERE c.contype = 'f' AND c.conparentid = 0 AND {} ORDER BY n.nspname, r.relname, c.conname
"""
_TRIGGERS = """
SELECT t.tgname AS name, pg_get_triggerdef(t.oid) AS text, t.tgenabled::text AS state
FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE t.tgrelid = %s AND NOT t.tgisinternal AND t.tgparentid = 0 AND n.nspname <> 'reinstate' ORDER BY t.tgname
"""
_RULES = "SELECT pg_get_ruledef(oid) AS text FROM pg_rewrite WHERE ev_class = %s AND rulename <> '_RETURN' ORDER BY 1"
_STATISTICS = "SELECT pg_get_statisticsobjdef(oid) AS text FROM pg_statistic_ext WHERE stxrelid = %s ORDER BY 1"
_POLICIES = """
SELECT p.polname AS name, p.polpermissive AS permissive, p.polcmd::text AS command,
    ARRAY(SELECT CASE r WHEN 0 THEN 'public' ELSE pg_get_userbyid(r) END FROM unnest(p.polroles) r) AS roles,
    pg_get_expr(p.polqual, p.polrelid) AS using, pg_get_expr(p.polwithcheck, p.polrelid) AS "check"
FROM pg_policy p WHERE p.polrelid = %s ORDER BY p.polname
"""
_GRANTS = """
SELECT g.rolname AS role, x.privilege_type AS privilege, NULL AS "column", x.is_grantable AS grantable
FROM pg_class c CROSS JOIN LATERAL aclexplode(coalesce(c.relacl, acldefault(
    CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))) x
LEFT JOIN pg_roles g ON g.oid = x.grantee WHERE c.oid = %(oid)s AND (x.grantee = 0 OR g.oid IS NOT NULL)
UNION ALL SELECT g.rolname, x.privilege_type, a.attname, x.is_grantable
FROM pg_attribute a CROSS JOIN LATERAL aclexplode(a.attacl) x LEFT JOIN pg_roles g ON g.oid = x.grantee
WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped AND (x.grantee = 0 OR g.oid IS NOT NULL)
ORDER BY 3 NULLS FIRST, 1 NULLS FIRST, 2
"""
"""A grant without a role is one to PUBLIC."""
_COMMENTS = """
SELECT 'TABLE' AS what, NULL AS name, obj_description(%(oid)s, 'pg_class') AS text
UNION ALL SELECT 'COLUMN', attname, col_description(attrelid, attnum) FROM pg_attribute
    WHERE attrelid = %(oid)s AND attnum > 0 AND NOT attisdropped
UNION ALL SELECT 'INDEX', c.relname, obj_description(c.oid, 'pg_class') FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = %(oid)s
UNION ALL SELECT 'CONSTRAINT', conname, obj_description(oid, 'pg_constraint') FROM pg_constraint
    WHERE conrelid = %(oid)s
UNION ALL SELECT 'TRIGGER', tgname, obj_description(oid, 'pg_trigger') FROM pg_trigger
    WHERE tgrelid = %(oid)s AND NOT tgisinternal
"""
_SEQUENCES = """
SELECT DISTINCT s.oid, n.nspname AS schema, s.relname AS name, format_type(q.seqtypid, NULL) AS type,
    format('INCREMENT %%s MINVALUE %%s MAXVALUE %%s START %%s CACHE %%s%%s', q.seqincrement, q.seqmin, q.seqmax,
        q.seqstart, q.seqcache, CASE WHEN q.seqcycle THEN ' CYCLE' ELSE '' END) AS options,
    o.attname AS owned_by, pg_get_userbyid(s.relowner) AS owner
FROM pg_class s JOIN pg_namespace n ON n.oid = s.relnamespace JOIN pg_sequence q ON q.seqrelid = s.oid
LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.deptype = 'a'
    AND d.refobjid = %(oid)s
LEFT JOIN pg_attribute o ON o.attrelid = d.refobjid AND o.attnum = d.refobjsubid
WHERE d.objid IS NOT NULL OR EXISTS (SELECT FROM pg_depend e JOIN pg_attrdef f ON f.oid = e.objid
    WHERE e.classid = 'pg_attrdef'::regclass AND e.refobjid = s.oid AND f.adrelid = %(oid)s) ORDER BY 2, 3
"""


def read(conn: Connection[Any], table: str) -> dict[str, Any]:
    """The definition of ``table`` (``schema.table``) in the caller's transaction (any role). Raises
    :class:`TableMissing`."""
    path = conn.execute("SELECT current_setting('search_path')").fetchone()
    conn.execute("SELECT set_config('search_path', 'pg_catalog', true)")
    try:
        return _read(conn, table)
    finally:
        if conn.info.transaction_status != 3:  # an aborted transaction takes no more commands
            conn.execute("SELECT set_config('search_path', %s, true)", path)


def attached(conn: Connection[Any], manifests: Iterable[TableManifest]) -> tuple[TableManifest, ...]:
    """The manifests with the definitions of their tables, as the transaction's snapshot shows them (any role)."""
    return tuple(replace(m, definition=read(conn, m.name)) for m in manifests)


def _read(conn: Connection[Any], table: str) -> dict[str, Any]:
    schema, _, name = table.partition(".")
    found = conn.execute(
        "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')",
        (schema, name),
    ).fetchone()
    if found is None:
        raise TableMissing(f"Table {table} does not exist; correct its name in the catalogue or create it.")
    oid = int(found[0])
    relations = []
    for row in _rows(conn, _RELATIONS, {"oid": oid}):
        own = row.pop("oid")
        relations.append(
            {
                **row,
                "columns": _rows(conn, _COLUMNS, (own,)),
                "indexes": _rows(conn, _INDEXES, (own,)),
                "checks": _rows(conn, _CHECKS, (own,)),
                "foreign": _rows(conn, _FOREIGN.format("c.conrelid = %s"), (own,)),
                "triggers": _rows(conn, _TRIGGERS, (own,)),
                "rules": [r["text"] for r in _rows(conn, _RULES, (own,))],
                "statistics": [r["text"] for r in _rows(conn, _STATISTICS, (own,))],
                "policies": _rows(conn, _POLICIES, (own,)),
                "grants": _rows(conn, _GRANTS, {"oid": own}),
                "comments": [r for r in _rows(conn, _COMMENTS, {"oid": own}) if r["text"] is not None],
            }
        )
    sequences = []
    for row in _rows(conn, _SEQUENCES, {"oid": oid}):
        own = row.pop("oid")
        sequences.append({**row, "grants": _rows(conn, _GRANTS, {"oid": own})})
    incoming = _rows(conn, _FOREIGN.format("c.confrelid = %(oid)s AND c.conrelid <> %(oid)s"), {"oid": oid})
    return {"version": VERSION, "relations": relations, "sequences": sequences, "incoming": incoming}


def _rows(conn: Connection[Any], query: str, values: Mapping[str, Any] | tuple[Any, ...]) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode(), values).fetchall()

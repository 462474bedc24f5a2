-- Fixed objects of the change journal. Run as the installer; every statement may run again.
CREATE TABLE IF NOT EXISTS reinstate.setting (
    name text PRIMARY KEY,
    value text NOT NULL
);
-- Two numbers per statement: one for its old images, the next for its new ones. CACHE 1: with cached ranges a later
-- write of one key could get a smaller number.
CREATE SEQUENCE IF NOT EXISTS reinstate.journal_seq AS bigint INCREMENT 2 CACHE 1;
CREATE TABLE IF NOT EXISTS reinstate.journal_table (
    table_name text PRIMARY KEY,
    relid oid NOT NULL,
    twin text NOT NULL UNIQUE,
    columns jsonb NOT NULL,
    key text[] NOT NULL,
    suppress text[] NOT NULL DEFAULT '{}',
    trigger_state text NOT NULL,
    installed_at timestamptz NOT NULL,
    installed_snapshot pg_snapshot NOT NULL,
    complete_since timestamptz NOT NULL,
    good_at timestamptz NOT NULL,
    lost_seen bigint NOT NULL DEFAULT 0,
    size_cap_mb int NOT NULL
);
-- What writes the piece in use: the functions' text with marks for its name and its room, see pieces.sql.
ALTER TABLE reinstate.journal_table ADD COLUMN IF NOT EXISTS capture text[] NOT NULL DEFAULT '{}',
    ADD COLUMN IF NOT EXISTS pieces int NOT NULL DEFAULT 0, ADD COLUMN IF NOT EXISTS piece text,
    ADD COLUMN IF NOT EXISTS room bigint NOT NULL DEFAULT 0, DROP COLUMN IF EXISTS signature;
-- Whose transaction numbers the twin holds, and how far they had gone at the last good tick.
ALTER TABLE reinstate.journal_table ADD COLUMN IF NOT EXISTS system_id text, ADD COLUMN IF NOT EXISTS seen_xid xid8;
DROP FUNCTION IF EXISTS reinstate.shape(oid);
ALTER SEQUENCE reinstate.journal_seq INCREMENT 2;
-- A twin is a parent table; its rows lie in pieces that inherit from it, by the time they were written.
CREATE TABLE IF NOT EXISTS reinstate.piece (
    name text PRIMARY KEY,
    twin text NOT NULL,
    number int NOT NULL,
    made_at timestamptz NOT NULL,
    closed_at timestamptz,
    closed_xid xid8,
    sealed_at timestamptz
);
CREATE TABLE IF NOT EXISTS reinstate.gap (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_name text NOT NULL,
    kind text NOT NULL,
    detail text NOT NULL,
    xid xid8,
    last_xid xid8,
    at timestamptz NOT NULL,
    until timestamptz
);
CREATE INDEX IF NOT EXISTS gap_open ON reinstate.gap (table_name, kind) WHERE until IS NULL;
CREATE TABLE IF NOT EXISTS reinstate.tick (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    snapshot pg_snapshot NOT NULL,
    system_id text NOT NULL,
    timeline int NOT NULL
);
CREATE INDEX IF NOT EXISTS tick_at ON reinstate.tick (at);
-- A journal of an earlier version: its ticks tell. The oldest of them is as old as the oldest image.
UPDATE reinstate.journal_table j SET
    system_id = coalesce((SELECT t.system_id FROM reinstate.tick t ORDER BY t.id LIMIT 1),
                         (SELECT c.system_identifier::text FROM pg_control_system() c)),
    seen_xid = greatest(pg_snapshot_xmax(j.installed_snapshot),
                        (SELECT max(pg_snapshot_xmax(t.snapshot)::text::numeric)::text::xid8 FROM reinstate.tick t),
                        (SELECT max(p.closed_xid::text::numeric)::text::xid8 FROM reinstate.piece p WHERE p.twin = j.twin))
WHERE j.system_id IS NULL;
CREATE TABLE IF NOT EXISTS reinstate.applied (
    recovery_id text NOT NULL,
    step text NOT NULL,
    plan_hash text NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    detail jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (recovery_id, step)
);
CREATE TABLE IF NOT EXISTS reinstate.fenced (
    ref text NOT NULL,
    role name NOT NULL,
    table_name text NOT NULL,
    privilege text NOT NULL,
    column_name text,
    grantable boolean NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    restored_at timestamptz
);
CREATE TABLE IF NOT EXISTS reinstate.trigger_off (
    table_name text NOT NULL,
    trigger_name text NOT NULL,
    state "char" NOT NULL,
    PRIMARY KEY (table_name, trigger_name)
);

-- A table and, if it is partitioned, everything below it.
CREATE OR REPLACE FUNCTION reinstate.relations(p_relid oid) RETURNS SETOF oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p_relid WHERE EXISTS (SELECT FROM pg_class WHERE oid = p_relid)
    UNION SELECT relid::oid FROM pg_partition_tree(p_relid::regclass)
$$;

-- Row identity of our triggers and their functions: any ALTER, DROP, DISABLE or ENABLE since changes it.
CREATE OR REPLACE FUNCTION reinstate.trigger_state(p_relid oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(string_agg(
        concat_ws(':', t.tgrelid, t.oid, t.xmin, t.tgenabled, p.oid, p.xmin), ' ' ORDER BY t.tgrelid, t.oid), '')
    FROM reinstate.relations(p_relid) AS r(relid)
    JOIN pg_trigger t ON t.tgrelid = r.relid AND NOT t.tgisinternal
    JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE p.pronamespace = 'reinstate'::regnamespace
$$;

-- What the capture functions of a twin really do.
CREATE OR REPLACE FUNCTION reinstate.function_body(p_twin text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT md5(string_agg(concat_ws(' ', p.proname, p.prosrc, p.prosecdef, p.proowner, p.proconfig::text), ' '
                          ORDER BY p.proname))
    FROM pg_proc p
    WHERE p.pronamespace = 'reinstate'::regnamespace AND p.proname IN (p_twin, p_twin || '_truncate')
$$;

-- What differs between the journal's idea of a table and the table: column-added, -dropped, -renamed, type-changed.
CREATE OR REPLACE FUNCTION reinstate.shape_changes(p_table text)
RETURNS TABLE (kind text, detail text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH known AS (
        SELECT c.* FROM reinstate.journal_table j,
            jsonb_to_recordset(j.columns) AS c(name text, type text, num int, typid oid) WHERE j.table_name = p_table
    ), now AS (
        SELECT a.attname::text AS name, a.attnum::int AS num, a.atttypid AS typid, format_type(a.atttypid, -1) AS type
        FROM reinstate.journal_table j JOIN pg_attribute a ON a.attrelid = j.relid
        WHERE j.table_name = p_table AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    )
    SELECT CASE WHEN known.num IS NULL THEN 'column-added' WHEN now.num IS NULL THEN 'column-dropped'
                WHEN known.name <> now.name THEN 'column-renamed' ELSE 'type-changed' END,
           CASE WHEN known.num IS NULL THEN format('column %s was added', now.name)
                WHEN now.num IS NULL THEN format('column %s was dropped', known.name)
                WHEN known.name <> now.name THEN format('column %s was renamed to %s', known.name, now.name)
                ELSE format('column %s changed from %s to %s', now.name, known.type, now.type) END
           || ': run journal install again'
    FROM known FULL JOIN now ON known.num = now.num
    WHERE known.num IS NULL OR now.num IS NULL OR known.name <> now.name OR known.typid <> now.typid
$$;

-- Record a gap unless one of that kind is open. Called by capture functions: it must never raise.
-- No unique index and no ON CONFLICT: they would make the app's transactions wait for each other.
CREATE OR REPLACE FUNCTION reinstate.note_gap(p_table text, p_kind text, p_detail text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO reinstate.gap (table_name, kind, detail, xid, at)
    SELECT p_table, p_kind, p_detail, pg_current_xact_id(), clock_timestamp()
    WHERE NOT EXISTS (SELECT FROM reinstate.gap g
                      WHERE g.table_name = p_table AND g.kind = p_kind AND g.until IS NULL);
EXCEPTION WHEN OTHERS THEN
    RAISE LOG 'reinstate: gap % of % could not be recorded: %', p_kind, p_table, SQLERRM;
END $$;

-- Record what an audit found, over the whole stretch in which it may have happened.
CREATE OR REPLACE FUNCTION reinstate.note_missed(p_table text, p_detail text, p_since timestamptz, p_until timestamptz)
RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO reinstate.gap (table_name, kind, detail, at, until)
    SELECT p_table, 'audit', p_detail, p_since, p_until
    WHERE NOT EXISTS (SELECT FROM reinstate.gap g WHERE g.table_name = p_table AND g.kind = 'audit'
                      AND g.at <= p_since AND g.until >= p_until)
$$;

-- The slow path of a capture function. The counter comes first: it needs no new disk space, survives a rollback and
-- is compared at every tick, so that a gap is found even when its row could not be written.
CREATE OR REPLACE FUNCTION reinstate.note_failure(p_table text, p_state text, p_message text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_kind text;
    v_detail text;
    v_change record;
BEGIN
    BEGIN
        PERFORM nextval(format('reinstate.%I', j.twin || '_lost')::regclass)
        FROM reinstate.journal_table j WHERE j.table_name = p_table;
    EXCEPTION WHEN OTHERS THEN
        RAISE LOG 'reinstate: loss in % could not be counted: %', p_table, SQLERRM;
    END;
    -- Full: said cheaply, because every statement comes here until it is pruned.
    IF p_state = 'RJ001' THEN
        PERFORM reinstate.note_gap(p_table, 'size-cap', p_message);
        RETURN;
    END IF;
    BEGIN
        FOR v_change IN SELECT * FROM reinstate.shape_changes(p_table) LOOP
            PERFORM reinstate.note_gap(p_table, v_change.kind, v_change.detail);
            v_kind := v_change.kind;
        END LOOP;
    EXCEPTION WHEN OTHERS THEN
        RAISE LOG 'reinstate: shape of % could not be read: %', p_table, SQLERRM;
    END;
    IF v_kind IS NOT NULL OR p_state IS NULL THEN
        RETURN;
    END IF;
    -- Messages of other classes may quote values of the row.
    v_detail := CASE WHEN left(p_state, 2) IN ('42', '53', '55', '58', 'RJ', 'XX') THEN p_message
                     ELSE 'the row images could not be stored' END || ' (SQLSTATE ' || p_state || ')';
    v_kind := CASE WHEN p_state = 'RJ002' THEN 'truncate'
                   WHEN p_state = '42P01' THEN 'twin-missing'
                   WHEN p_state = '55P03' THEN 'lock-timeout'
                   WHEN p_state = '53100' OR p_message ~ '(No space left|File too large|Disk quota)' THEN 'disk-full'
                   ELSE 'capture-failed' END;
    PERFORM reinstate.note_gap(p_table, v_kind, v_detail);
END $$;

-- A piece of a twin, while it is there and its rows are seen through the twin; else NULL.
CREATE OR REPLACE FUNCTION reinstate.piece_of(p_twin text, p_piece text) RETURNS oid
LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT i.inhrelid FROM pg_inherits i
    WHERE i.inhparent = to_regclass(format('reinstate.%I', p_twin))
        AND i.inhrelid = to_regclass(format('reinstate.%I', p_piece))
$$;

-- How many statements of a table could not be journaled in full.
CREATE OR REPLACE FUNCTION reinstate.lost(p_twin text) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_lost bigint;
BEGIN
    EXECUTE format('SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM reinstate.%I', p_twin || '_lost')
    INTO v_lost;
    RETURN v_lost;
EXCEPTION WHEN undefined_table THEN
    RETURN -1;
END $$;

-- Whether a twin's transaction numbers are not this server's: the database was carried here from another one, or from
-- a later time of this one, row by row. They would count as younger than any position, and meet real ones in time.
-- What a tick has recorded stays so: the server's numbers grow past those of the twin.
CREATE OR REPLACE FUNCTION reinstate.carried_over(j reinstate.journal_table) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT j.system_id IS DISTINCT FROM c.system_identifier::text
        OR j.seen_xid > pg_snapshot_xmax(pg_current_snapshot())
        OR EXISTS (SELECT FROM reinstate.gap g
                   WHERE g.table_name = j.table_name AND g.kind = 'other-server' AND g.until IS NULL)
    FROM pg_control_system() c
$$;

-- What is wrong with the journal now, without changing anything.
-- lasting: still so. Not lasting: it was so at some time since p_since; it may be over.
CREATE OR REPLACE FUNCTION reinstate.findings()
RETURNS TABLE (table_name text, kind text, detail text, since timestamptz, lasting boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH foreigner AS (
        SELECT t.table_name, t.complete_since FROM reinstate.journal_table t WHERE reinstate.carried_over(t)
    ), j AS (
        SELECT t.*, c.oid AS found, n.nspname || '.' || c.relname AS name_now,
               to_regclass(format('reinstate.%I', t.twin)) AS twin_oid,
               reinstate.piece_of(t.twin, t.piece) AS piece_oid,
               reinstate.trigger_state(t.relid) AS state_now
        FROM reinstate.journal_table t
        LEFT JOIN pg_class c ON c.oid = t.relid
        LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE t.table_name NOT IN (SELECT f.table_name FROM foreigner f)
    ), leaf AS (
        SELECT j.table_name, j.good_at, r.relid, count(t.oid) FILTER (WHERE t.tgenabled = 'A') AS good,
               count(t.oid) AS all_triggers
        FROM j CROSS JOIN LATERAL reinstate.relations(j.relid) AS r(relid)
        LEFT JOIN pg_trigger t ON t.tgrelid = r.relid AND NOT t.tgisinternal AND t.tgname IN
            ('rj_insert', 'rj_update', 'rj_delete', 'rj_truncate')
            AND t.tgfoid IN (SELECT oid FROM pg_proc WHERE pronamespace = 'reinstate'::regnamespace)
        WHERE j.found IS NOT NULL
        GROUP BY j.table_name, j.good_at, r.relid
    )
    SELECT f.table_name, 'other-server', 'its images carry the transaction numbers of another server, or of a later time'
           ' of this one: run journal install again, which begins anew', f.complete_since, true FROM foreigner f
    UNION ALL
    SELECT j.table_name, 'table-missing', 'the table is gone', j.good_at, true FROM j WHERE found IS NULL
    UNION ALL
    SELECT j.table_name, 'table-renamed', format('the table is called %s now: run journal install again', name_now),
           j.good_at, true FROM j WHERE found IS NOT NULL AND name_now <> j.table_name
    UNION ALL
    SELECT j.table_name, 'twin-missing', format('reinstate.%s is gone: run journal install again', j.twin),
           j.good_at, true FROM j WHERE twin_oid IS NULL
    UNION ALL
    SELECT j.table_name, 'twin-missing', format('reinstate.%s is gone: run journal install again', j.piece),
           j.good_at, true FROM j WHERE twin_oid IS NOT NULL AND j.piece IS NOT NULL AND piece_oid IS NULL
    UNION ALL
    SELECT j.table_name, 'history-missing', format('reinstate.%s, a piece of the twin, is gone', p.name), p.made_at, true
    FROM j JOIN reinstate.piece p ON p.twin = j.twin AND p.closed_at IS NOT NULL
    WHERE reinstate.piece_of(j.twin, p.name) IS NULL
    UNION ALL
    SELECT j.table_name, 'size-cap', format('the twin is larger than %s MB: prune', j.size_cap_mb), j.good_at, true
    FROM j WHERE pg_relation_size(piece_oid) >= j.room
    UNION ALL
    SELECT l.table_name, CASE WHEN l.all_triggers = 4 THEN 'trigger-disabled'
                              WHEN l.relid IN (SELECT relid FROM reinstate.journal_table) THEN 'trigger-missing'
                              ELSE 'partition-unjournaled' END,
           format('triggers of %s are not all there and always enabled: run journal install again', l.relid::regclass),
           l.good_at, true
    FROM leaf l WHERE l.good < 4
    UNION ALL
    SELECT j.table_name, 'trigger-disabled', 'the triggers were changed and changed back', j.good_at, false
    FROM j WHERE found IS NOT NULL AND state_now <> j.trigger_state
        AND NOT EXISTS (SELECT FROM leaf l WHERE l.table_name = j.table_name AND l.good < 4)
    UNION ALL
    SELECT j.table_name, 'function-changed', 'a capture function is not the installed one: run journal install again',
           j.good_at, true
    FROM j WHERE found IS NOT NULL AND reinstate.function_body(j.twin) IS DISTINCT FROM
        (SELECT s.value FROM reinstate.setting s WHERE s.name = 'body ' || j.twin)
    UNION ALL
    SELECT j.table_name, s.kind, s.detail, j.good_at, true
    FROM j CROSS JOIN LATERAL reinstate.shape_changes(j.table_name) s WHERE found IS NOT NULL
    UNION ALL
    SELECT j.table_name, 'capture-failed', 'statements could not be journaled', j.good_at, false
    FROM j WHERE reinstate.lost(j.twin) IS DISTINCT FROM j.lost_seen
$$;

-- Record the position and what is wrong; close gaps that are over. Returns the position.
CREATE OR REPLACE FUNCTION reinstate.record_tick()
RETURNS TABLE (snapshot text, system_id text, timeline int, at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_at timestamptz;
    v_snapshot pg_snapshot;
    v_before jsonb;
    v_found jsonb;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('reinstate.tick', 0));
    v_at := clock_timestamp();
    v_snapshot := pg_current_snapshot();
    -- Remembered values are read before the findings: what changes in between is found by the next tick.
    SELECT coalesce(jsonb_agg(jsonb_build_object('table_name', j.table_name, 'lost', reinstate.lost(j.twin),
                                                 'state', reinstate.trigger_state(j.relid))), '[]')
    INTO v_before FROM reinstate.journal_table j;
    SELECT coalesce(jsonb_agg(to_jsonb(f)), '[]') INTO v_found FROM reinstate.findings() f;
    -- Enabling a trigger waits for all writers: nothing of the disabled time can still be open.
    INSERT INTO reinstate.gap (table_name, kind, detail, at, until)
    SELECT f.table_name, f.kind, f.detail, f.since, v_at
    FROM jsonb_to_recordset(v_found) AS f(table_name text, kind text, detail text, since timestamptz, lasting boolean)
    WHERE f.kind = 'trigger-disabled' AND NOT f.lasting AND NOT EXISTS (
        SELECT FROM reinstate.gap g WHERE g.table_name = f.table_name AND g.kind = f.kind AND g.until IS NULL);
    UPDATE reinstate.gap g SET until = v_at
    FROM jsonb_to_recordset(v_found) AS f(table_name text, kind text, lasting boolean)
    WHERE g.until IS NULL AND g.kind = 'trigger-disabled' AND f.table_name = g.table_name AND f.kind = g.kind
        AND NOT f.lasting;
    -- Every transaction that may have failed to journal has a number below the snapshot's upper bound.
    UPDATE reinstate.gap g SET last_xid = pg_snapshot_xmax(pg_current_snapshot())
    FROM jsonb_to_recordset(v_found) AS f(table_name text, kind text)
    WHERE g.until IS NULL AND f.table_name = g.table_name AND f.kind IN (g.kind, 'capture-failed');
    INSERT INTO reinstate.gap (table_name, kind, detail, last_xid, at)
    SELECT f.table_name, f.kind, min(f.detail), pg_snapshot_xmax(pg_current_snapshot()), min(f.since)
    FROM jsonb_to_recordset(v_found) AS f(table_name text, kind text, detail text, since timestamptz, lasting boolean)
    WHERE (f.lasting OR f.kind = 'capture-failed') AND f.kind <> 'history-missing' AND NOT EXISTS (
        SELECT FROM reinstate.gap g WHERE g.table_name = f.table_name AND g.until IS NULL
            AND (g.kind = f.kind OR f.kind = 'capture-failed'))
    GROUP BY f.table_name, f.kind;
    -- Over: the cause is gone and every transaction that may have lost something has ended.
    UPDATE reinstate.gap g SET until = v_at
    WHERE g.until IS NULL AND pg_snapshot_xmin(v_snapshot) > coalesce(greatest(g.xid, g.last_xid), '0'::xid8)
        AND NOT EXISTS (SELECT FROM jsonb_to_recordset(v_found) AS f(table_name text, kind text)
                        WHERE f.table_name = g.table_name AND f.kind IN (g.kind, 'capture-failed'));
    UPDATE reinstate.journal_table j SET lost_seen = b.lost
    FROM jsonb_to_recordset(v_before) AS b(table_name text, lost bigint)
    WHERE b.table_name = j.table_name AND b.lost IS DISTINCT FROM j.lost_seen;
    UPDATE reinstate.journal_table j SET trigger_state = b.state, good_at = v_at,
        seen_xid = pg_snapshot_xmax(v_snapshot)
    FROM jsonb_to_recordset(v_before) AS b(table_name text, state text)
    WHERE b.table_name = j.table_name AND NOT EXISTS (
        SELECT FROM jsonb_to_recordset(v_found) AS f(table_name text, lasting boolean)
        WHERE f.table_name = j.table_name AND f.lasting);
    RETURN QUERY INSERT INTO reinstate.tick AS t (at, snapshot, system_id, timeline)
        SELECT v_at, v_snapshot, c.system_identifier::text,
               ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int
        FROM pg_control_system() c
        RETURNING t.snapshot::text, t.system_id, t.timeline, t.at;
END $$;

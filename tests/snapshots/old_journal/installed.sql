-- What 0.1.0 of before the pieces installed for the table of journal_desk.py, as its dry run printed it.
-- Fixed objects of the change journal. Run as the installer; every statement may run again.
CREATE TABLE IF NOT EXISTS reinstate.setting (
    name text PRIMARY KEY,
    value text NOT NULL
);
-- One number per row image. CACHE 1: with cached ranges a later write of one key could get a smaller number.
CREATE SEQUENCE IF NOT EXISTS reinstate.journal_seq AS bigint CACHE 1;
CREATE SEQUENCE IF NOT EXISTS reinstate.journal_stmt AS bigint CACHE 1;
CREATE TABLE IF NOT EXISTS reinstate.journal_table (
    table_name text PRIMARY KEY,
    relid oid NOT NULL,
    twin text NOT NULL UNIQUE,
    columns jsonb NOT NULL,
    key text[] NOT NULL,
    suppress text[] NOT NULL DEFAULT '{}',
    signature bigint NOT NULL,
    trigger_state text NOT NULL,
    installed_at timestamptz NOT NULL,
    installed_snapshot pg_snapshot NOT NULL,
    complete_since timestamptz NOT NULL,
    good_at timestamptz NOT NULL,
    lost_seen bigint NOT NULL DEFAULT 0,
    size_cap_mb int NOT NULL
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

-- The shape of a table: names and types of what the journal keeps. Order does not count (partitions differ in it).
CREATE OR REPLACE FUNCTION reinstate.shape(p_relid oid) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT bit_xor(hashtextextended(attname::text || ' ' || atttypid::text, 0))
    FROM pg_attribute WHERE attrelid = p_relid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
$$;

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
    v_kind := CASE WHEN p_state = 'RJ001' THEN 'size-cap'
                   WHEN p_state = 'RJ002' THEN 'truncate'
                   WHEN p_state = '42P01' THEN 'twin-missing'
                   WHEN p_state = '55P03' THEN 'lock-timeout'
                   WHEN p_state = '53100' OR p_message ~ '(No space left|File too large|Disk quota)' THEN 'disk-full'
                   ELSE 'capture-failed' END;
    PERFORM reinstate.note_gap(p_table, v_kind, v_detail);
END $$;

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

-- What is wrong with the journal now, without changing anything.
-- lasting: still so. Not lasting: it was so at some time since p_since; it may be over.
CREATE OR REPLACE FUNCTION reinstate.findings()
RETURNS TABLE (table_name text, kind text, detail text, since timestamptz, lasting boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH j AS (
        SELECT t.*, c.oid AS found, n.nspname || '.' || c.relname AS name_now,
               to_regclass(format('reinstate.%I', t.twin)) AS twin_oid,
               reinstate.trigger_state(t.relid) AS state_now
        FROM reinstate.journal_table t
        LEFT JOIN pg_class c ON c.oid = t.relid
        LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
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
    SELECT j.table_name, 'table-missing', 'the table is gone', j.good_at, true FROM j WHERE found IS NULL
    UNION ALL
    SELECT j.table_name, 'table-renamed', format('the table is called %s now: run journal install again', name_now),
           j.good_at, true FROM j WHERE found IS NOT NULL AND name_now <> j.table_name
    UNION ALL
    SELECT j.table_name, 'twin-missing', format('reinstate.%s is gone: run journal install again', j.twin),
           j.good_at, true FROM j WHERE twin_oid IS NULL
    UNION ALL
    SELECT j.table_name, 'size-cap', format('the twin is larger than %s MB: prune', j.size_cap_mb), j.good_at, true
    FROM j WHERE pg_relation_size(twin_oid) > j.size_cap_mb::bigint * 1048576
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
    WHERE (f.lasting OR f.kind = 'capture-failed') AND NOT EXISTS (
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
    UPDATE reinstate.journal_table j SET trigger_state = b.state, good_at = v_at
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
;
-- Forgetting old changes. A twin is append-only, so what stays is copied without a lock and swapped in under a short one.

-- The newest tick before p_before: every transaction it has seen may be forgotten, whole.
CREATE OR REPLACE FUNCTION reinstate.prune_point(p_before timestamptz)
RETURNS TABLE (at timestamptz, before_xid xid8)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.at, pg_snapshot_xmin(t.snapshot) FROM reinstate.tick t WHERE t.at <= p_before ORDER BY t.at DESC LIMIT 1
$$;

-- Step 1: copy what stays. Returns the snapshot the copy was made with.
CREATE OR REPLACE FUNCTION reinstate.prune_copy(p_table text, p_before xid8) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_twin text;
    v_snapshot text;
BEGIN
    SELECT j.twin INTO STRICT v_twin FROM reinstate.journal_table j WHERE j.table_name = p_table;
    EXECUTE format('DROP TABLE IF EXISTS reinstate.%I', v_twin || '_kept');
    EXECUTE format('CREATE TABLE reinstate.%I (LIKE reinstate.%I INCLUDING ALL)', v_twin || '_kept', v_twin);
    EXECUTE format('WITH copied AS (INSERT INTO reinstate.%I SELECT * FROM reinstate.%I WHERE rj_xid >= $1)
                    SELECT pg_current_snapshot()::text', v_twin || '_kept', v_twin) INTO v_snapshot USING p_before;
    RETURN v_snapshot;
END $$;

-- Step 2, in a transaction of its own: add what was committed since the copy, swap. Returns the rows forgotten.
CREATE OR REPLACE FUNCTION reinstate.prune_swap(p_table text, p_before xid8, p_at timestamptz, p_copied text)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    v_twin text;
    v_forgotten bigint;
    v_capturer text;
    v_recoverer text;
BEGIN
    SELECT j.twin INTO STRICT v_twin FROM reinstate.journal_table j WHERE j.table_name = p_table;
    SELECT max(s.value) FILTER (WHERE s.name = 'capturer'), max(s.value) FILTER (WHERE s.name = 'recoverer')
    INTO v_capturer, v_recoverer FROM reinstate.setting s;
    EXECUTE format('LOCK TABLE reinstate.%I IN ACCESS EXCLUSIVE MODE', v_twin);
    EXECUTE format('INSERT INTO reinstate.%I SELECT * FROM reinstate.%I
                    WHERE rj_xid >= $1 AND rj_xid >= pg_snapshot_xmin($2) AND NOT pg_visible_in_snapshot(rj_xid, $2)',
                   v_twin || '_kept', v_twin) USING p_before, p_copied::pg_snapshot;
    EXECUTE format('SELECT count(*) FROM reinstate.%I WHERE rj_xid < $1', v_twin) INTO v_forgotten USING p_before;
    EXECUTE format('DROP TABLE reinstate.%I', v_twin);
    EXECUTE format('ALTER TABLE reinstate.%I RENAME TO %I', v_twin || '_kept', v_twin);
    EXECUTE format('GRANT SELECT ON reinstate.%I TO %I, %I', v_twin, v_capturer, v_recoverer);
    UPDATE reinstate.journal_table j SET complete_since = greatest(j.complete_since, p_at) WHERE j.table_name = p_table;
    RETURN v_forgotten;
END $$;

-- Where a table has nothing to forget: from now on nothing is claimed about the time before either.
CREATE OR REPLACE FUNCTION reinstate.prune_mark(p_table text, p_at timestamptz) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE reinstate.journal_table j SET complete_since = greatest(j.complete_since, p_at) WHERE j.table_name = p_table
$$;

-- Ticks and closed gaps older than what every table still has.
CREATE OR REPLACE FUNCTION reinstate.prune_ticks() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM reinstate.tick t WHERE t.at < (SELECT min(j.complete_since) FROM reinstate.journal_table j);
    DELETE FROM reinstate.gap g WHERE g.until < (SELECT min(j.complete_since) FROM reinstate.journal_table j);
$$;
;
-- The fence, and switching the app's own triggers: what the recoverer may have done by the owner, and nothing more.

-- The app's relations: everything in the schemas of journaled tables that the installer has owner's rights on.
CREATE OR REPLACE FUNCTION reinstate.app_relations() RETURNS TABLE (relid oid, name text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.oid, n.nspname || '.' || c.relname
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'f') AND n.nspname <> 'reinstate'
        AND c.relnamespace IN (SELECT k.relnamespace FROM reinstate.journal_table j JOIN pg_class k ON k.oid = j.relid)
$$;

-- Take the role's write grants and remember them under p_ref. Returns how many grants were taken now.
-- Grants made by others than the owner, and what came through PUBLIC or membership, stay: see fence.leaks.
CREATE OR REPLACE FUNCTION reinstate.fence(p_role name, p_ref text) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_grant record;
    v_taken int := 0;
    v_role oid;
BEGIN
    SELECT oid INTO v_role FROM pg_roles WHERE rolname = p_role;
    IF v_role IS NULL THEN
        RAISE EXCEPTION 'role "%" does not exist', p_role USING ERRCODE = 'undefined_object';
    END IF;
    IF p_role = current_user OR p_role IN (SELECT s.value FROM reinstate.setting s
                                           WHERE s.name IN ('installer', 'capturer', 'recoverer')) THEN
        RAISE EXCEPTION 'role "%" belongs to Reinstate and cannot be fenced', p_role USING ERRCODE = 'RJ003';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('reinstate.fence', 0));
    -- A second incident holds the same fence up.
    INSERT INTO reinstate.fenced (ref, role, table_name, privilege, column_name, grantable)
    SELECT DISTINCT p_ref, f.role, f.table_name, f.privilege, f.column_name, f.grantable FROM reinstate.fenced f
    WHERE f.role = p_role AND f.restored_at IS NULL AND f.ref <> p_ref AND NOT EXISTS (
        SELECT FROM reinstate.fenced g WHERE g.ref = p_ref AND g.role = p_role AND g.restored_at IS NULL
            AND g.table_name = f.table_name AND g.privilege = f.privilege
            AND g.column_name IS NOT DISTINCT FROM f.column_name);
    -- Columns first: revoking from a table also revokes from its columns.
    FOR v_grant IN
        SELECT r.relid, r.name, x.privilege_type, a.attname::text AS column_name, x.is_grantable
        FROM reinstate.app_relations() r
        JOIN pg_class c ON c.oid = r.relid
        JOIN pg_attribute a ON a.attrelid = r.relid AND a.attnum > 0 AND NOT a.attisdropped
        CROSS JOIN LATERAL aclexplode(a.attacl) x
        WHERE x.grantee = v_role AND x.grantor = c.relowner AND x.privilege_type IN ('INSERT', 'UPDATE')
        UNION ALL
        SELECT r.relid, r.name, x.privilege_type, NULL, x.is_grantable
        FROM reinstate.app_relations() r
        JOIN pg_class c ON c.oid = r.relid
        CROSS JOIN LATERAL aclexplode(c.relacl) x
        WHERE x.grantee = v_role AND x.grantor = c.relowner AND c.relowner <> v_role
            AND x.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')
        ORDER BY 4 NULLS LAST, 2, 3
    LOOP
        BEGIN
            EXECUTE format('REVOKE %s%s ON %s FROM %I', v_grant.privilege_type,
                           coalesce(' (' || quote_ident(v_grant.column_name) || ')', ''),
                           v_grant.relid::regclass, p_role);
            INSERT INTO reinstate.fenced (ref, role, table_name, privilege, column_name, grantable)
            VALUES (p_ref, p_role, v_grant.name, v_grant.privilege_type, v_grant.column_name, v_grant.is_grantable);
            v_taken := v_taken + 1;
        EXCEPTION WHEN insufficient_privilege OR dependent_objects_still_exist THEN
            RAISE LOG 'reinstate: % on % could not be taken from %: %', v_grant.privilege_type, v_grant.name, p_role,
                SQLERRM;
        END;
    END LOOP;
    RETURN v_taken;
END $$;

-- Give back exactly what reinstate.fence took under p_ref, unless another fence of the role still stands.
-- Returns how many grants were given back.
CREATE OR REPLACE FUNCTION reinstate.unfence(p_role name, p_ref text) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_grant record;
    v_given int := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('reinstate.fence', 0));
    FOR v_grant IN
        SELECT f.ctid AS row, f.*, to_regclass(quote_ident(split_part(f.table_name, '.', 1)) || '.'
            || quote_ident(substr(f.table_name, strpos(f.table_name, '.') + 1))) AS relation
        FROM reinstate.fenced f WHERE f.ref = p_ref AND f.role = p_role AND f.restored_at IS NULL
        ORDER BY f.table_name, f.column_name NULLS FIRST
    LOOP
        UPDATE reinstate.fenced f SET restored_at = clock_timestamp() WHERE f.ctid = v_grant.row;
        CONTINUE WHEN v_grant.relation IS NULL OR EXISTS (
            SELECT FROM reinstate.fenced f WHERE f.role = p_role AND f.ref <> p_ref AND f.restored_at IS NULL);
        CONTINUE WHEN v_grant.column_name IS NOT NULL AND NOT EXISTS (
            SELECT FROM pg_attribute a WHERE a.attrelid = v_grant.relation AND a.attname = v_grant.column_name
                AND NOT a.attisdropped);
        EXECUTE format('GRANT %s%s ON %s TO %I%s', v_grant.privilege,
                       coalesce(' (' || quote_ident(v_grant.column_name) || ')', ''), v_grant.relation, p_role,
                       CASE WHEN v_grant.grantable THEN ' WITH GRANT OPTION' ELSE '' END);
        v_given := v_given + 1;
    END LOOP;
    RETURN v_given;
END $$;

-- Switch triggers of the app that its catalogue declares as suppressed; switching on restores the earlier state.
-- Run SET CONSTRAINTS ALL IMMEDIATE before switching on: a table with pending trigger events cannot be altered.
CREATE OR REPLACE FUNCTION reinstate.set_triggers(p_table text, p_names text[], p_enabled boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_relid oid;
    v_declared text[];
    v_name text;
    v_state "char";
BEGIN
    SELECT j.relid, j.suppress INTO v_relid, v_declared FROM reinstate.journal_table j WHERE j.table_name = p_table;
    IF v_relid IS NULL THEN
        RAISE EXCEPTION 'table % is not journaled', p_table USING ERRCODE = 'RJ003';
    END IF;
    FOREACH v_name IN ARRAY p_names LOOP
        SELECT t.tgenabled INTO v_state FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE t.tgrelid = v_relid AND t.tgname = v_name AND NOT t.tgisinternal
            AND p.pronamespace <> 'reinstate'::regnamespace;
        IF v_state IS NULL OR NOT v_name = ANY (v_declared) THEN
            RAISE EXCEPTION 'trigger "%" of % is not one that the catalogue declares as suppressed', v_name, p_table
                USING ERRCODE = 'RJ003', HINT = 'Declare it and run journal install again.';
        END IF;
        IF p_enabled THEN
            DELETE FROM reinstate.trigger_off o WHERE o.table_name = p_table AND o.trigger_name = v_name
            RETURNING o.state INTO v_state;
            CONTINUE WHEN NOT FOUND;
            EXECUTE format('ALTER TABLE %s %s TRIGGER %I', v_relid::regclass, CASE v_state WHEN 'A' THEN 'ENABLE ALWAYS'
                           WHEN 'R' THEN 'ENABLE REPLICA' WHEN 'D' THEN 'DISABLE' ELSE 'ENABLE' END, v_name);
        ELSE
            INSERT INTO reinstate.trigger_off VALUES (p_table, v_name, v_state) ON CONFLICT DO NOTHING;
            EXECUTE format('ALTER TABLE %s DISABLE TRIGGER %I', v_relid::regclass, v_name);
        END IF;
    END LOOP;
END $$;
;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA reinstate FROM PUBLIC;
GRANT USAGE ON SCHEMA reinstate TO "capturer", "recoverer";
GRANT SELECT ON "reinstate"."setting", "reinstate"."journal_table", "reinstate"."gap", "reinstate"."tick", "reinstate"."applied", "reinstate"."fenced", "reinstate"."trigger_off" TO "capturer", "recoverer";
GRANT INSERT ON reinstate.applied TO "recoverer";
GRANT EXECUTE ON FUNCTION reinstate.findings(), reinstate.lost(text), reinstate.app_relations() TO "capturer", "recoverer";
GRANT EXECUTE ON FUNCTION reinstate.record_tick(), reinstate.fence(name, text), reinstate.unfence(name, text), reinstate.set_triggers(text, text[], boolean), reinstate.prune_point(timestamptz), reinstate.prune_copy(text, xid8), reinstate.prune_swap(text, xid8, timestamptz, text), reinstate.prune_mark(text, timestamptz), reinstate.prune_ticks() TO "recoverer";
INSERT INTO reinstate.setting VALUES ('installer', current_user), ('capturer', 'capturer'), ('recoverer', 'recoverer'), ('version', '8cabc93b07c50220') ON CONFLICT (name) DO UPDATE SET value = excluded.value;
DROP TABLE IF EXISTS "reinstate"."j_public__orders";
DROP SEQUENCE IF EXISTS "reinstate"."j_public__orders_lost";
CREATE TABLE "reinstate"."j_public__orders" ("id" integer, "qty" integer, "total" numeric, "note" text, "rj_seq" bigint NOT NULL, "rj_stmt" bigint NOT NULL, "rj_xid" xid8 NOT NULL, "rj_at" timestamptz NOT NULL, "rj_actor" name NOT NULL, "rj_app" text NOT NULL, "rj_op" "char" NOT NULL, "rj_side" "char" NOT NULL, rj_run text);
CREATE INDEX ON "reinstate"."j_public__orders" (rj_xid);
CREATE SEQUENCE "reinstate"."j_public__orders_lost";

CREATE OR REPLACE FUNCTION "reinstate"."j_public__orders"() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $rj$
#variable_conflict use_column
DECLARE
    v_state text;
    v_message text;
    v_stmt bigint;
    v_at timestamptz := clock_timestamp();
    v_run text := nullif(current_setting('reinstate.run', true), '');
    v_app text := current_setting('application_name');
BEGIN
    IF NOT (SELECT bit_xor(hashtextextended(attname::text || ' ' || atttypid::text, 0)) IN (8588318044959092463)
            FROM pg_attribute WHERE attrelid = TG_RELID AND attnum > 0 AND NOT attisdropped
                  AND attgenerated = '') THEN
        PERFORM reinstate.note_failure('public.orders', NULL, NULL);
    END IF;
    IF pg_relation_size('"reinstate"."j_public__orders"'::regclass) > 1073741824 THEN
        RAISE EXCEPTION USING ERRCODE = 'RJ001', MESSAGE = 'the twin is larger than 1024 MB';
    END IF;
    v_stmt := nextval('reinstate.journal_stmt');
    IF TG_OP = 'INSERT' THEN
        INSERT INTO "reinstate"."j_public__orders" ("id", "qty", "total", "note", "rj_seq", "rj_stmt", "rj_xid", "rj_at", "rj_actor", "rj_app", "rj_run", "rj_op", "rj_side")
        SELECT "id", "qty", "total", "note", nextval('reinstate.journal_seq'), v_stmt, pg_current_xact_id(), v_at, session_user, v_app,
               v_run, 'I', 'n' FROM rj_new;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO "reinstate"."j_public__orders" ("id", "qty", "total", "note", "rj_seq", "rj_stmt", "rj_xid", "rj_at", "rj_actor", "rj_app", "rj_run", "rj_op", "rj_side")
        SELECT "id", "qty", "total", "note", nextval('reinstate.journal_seq'), v_stmt, pg_current_xact_id(), v_at, session_user, v_app,
               v_run, 'D', 'o' FROM rj_old;
    ELSE
        INSERT INTO "reinstate"."j_public__orders" ("id", "qty", "total", "note", "rj_seq", "rj_stmt", "rj_xid", "rj_at", "rj_actor", "rj_app", "rj_run", "rj_op", "rj_side")
        SELECT "id", "qty", "total", "note", nextval('reinstate.journal_seq'), v_stmt, pg_current_xact_id(), v_at, session_user, v_app,
               v_run, 'U', 'o' FROM rj_old;
        INSERT INTO "reinstate"."j_public__orders" ("id", "qty", "total", "note", "rj_seq", "rj_stmt", "rj_xid", "rj_at", "rj_actor", "rj_app", "rj_run", "rj_op", "rj_side")
        SELECT "id", "qty", "total", "note", nextval('reinstate.journal_seq'), v_stmt, pg_current_xact_id(), v_at, session_user, v_app,
               v_run, 'U', 'n' FROM rj_new;
    END IF;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    BEGIN
        GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT;
        PERFORM reinstate.note_failure('public.orders', v_state, v_message);
    EXCEPTION WHEN OTHERS THEN
        RAISE LOG 'reinstate: journal of % failed and could not say so: %', 'public.orders', SQLERRM;
    END;
    RETURN NULL;
END $rj$
;

CREATE OR REPLACE FUNCTION "reinstate"."j_public__orders_truncate"() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
SET row_security = off AS $rj$
#variable_conflict use_column
DECLARE
    v_state text;
    v_message text;
    v_stmt bigint;
    v_at timestamptz := clock_timestamp();
BEGIN
    -- A snapshot taken earlier does not show all rows that the TRUNCATE removes.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING ERRCODE = 'RJ002', MESSAGE = 'TRUNCATE at an isolation level above read committed';
    END IF;
    IF TG_RELID = '"public"."orders"'::regclass AND TG_RELID IN (SELECT partrelid FROM pg_partitioned_table) THEN
        RETURN NULL;
    END IF;
    EXECUTE format('SELECT count(*) FROM (SELECT FROM ONLY %s LIMIT 50001) AS part', TG_RELID::regclass)
    INTO v_stmt;
    IF v_stmt > 50000 THEN
        RAISE EXCEPTION USING ERRCODE = 'RJ002', MESSAGE = 'TRUNCATE of more than 50000 rows';
    END IF;
    v_stmt := nextval('reinstate.journal_stmt');
    EXECUTE format('INSERT INTO "reinstate"."j_public__orders" ("id", "qty", "total", "note", "rj_seq", "rj_stmt", "rj_xid", "rj_at", "rj_actor", "rj_app", "rj_run", "rj_op", "rj_side") SELECT "id", "qty", "total", "note", nextval(''reinstate.journal_seq''), $1, pg_current_xact_id(), $2, session_user, current_setting(''application_name''), nullif(current_setting(''reinstate.run'', true), ''''), ''T'', ''o'' FROM ONLY %s', TG_RELID::regclass) USING v_stmt, v_at;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    BEGIN
        GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT;
        PERFORM reinstate.note_failure('public.orders', v_state, v_message);
    EXCEPTION WHEN OTHERS THEN
        RAISE LOG 'reinstate: journal of % failed and could not say so: %', 'public.orders', SQLERRM;
    END;
    RETURN NULL;
END $rj$
;
GRANT SELECT ON "reinstate"."j_public__orders" TO "capturer", "recoverer";
REVOKE ALL ON FUNCTION "reinstate"."j_public__orders"(), "reinstate"."j_public__orders_truncate"() FROM PUBLIC;
LOCK TABLE "public"."orders" IN SHARE ROW EXCLUSIVE MODE;
CREATE OR REPLACE TRIGGER "rj_insert" AFTER INSERT ON "public"."orders" REFERENCING NEW TABLE AS rj_new FOR EACH STATEMENT EXECUTE FUNCTION "reinstate"."j_public__orders"();
ALTER TABLE "public"."orders" ENABLE ALWAYS TRIGGER "rj_insert";
CREATE OR REPLACE TRIGGER "rj_update" AFTER UPDATE ON "public"."orders" REFERENCING OLD TABLE AS rj_old NEW TABLE AS rj_new FOR EACH STATEMENT EXECUTE FUNCTION "reinstate"."j_public__orders"();
ALTER TABLE "public"."orders" ENABLE ALWAYS TRIGGER "rj_update";
CREATE OR REPLACE TRIGGER "rj_delete" AFTER DELETE ON "public"."orders" REFERENCING OLD TABLE AS rj_old FOR EACH STATEMENT EXECUTE FUNCTION "reinstate"."j_public__orders"();
ALTER TABLE "public"."orders" ENABLE ALWAYS TRIGGER "rj_delete";
CREATE OR REPLACE TRIGGER "rj_truncate" BEFORE TRUNCATE ON "public"."orders"  FOR EACH STATEMENT EXECUTE FUNCTION "reinstate"."j_public__orders_truncate"();
ALTER TABLE "public"."orders" ENABLE ALWAYS TRIGGER "rj_truncate";

WITH now AS MATERIALIZED (SELECT clock_timestamp() AS at), changed AS (
    INSERT INTO reinstate.gap (table_name, kind, detail, at, until)
    SELECT 'public.orders', s.kind, s.detail, j.good_at, now.at
    FROM now, reinstate.journal_table j, reinstate.shape_changes('public.orders') s
    WHERE j.table_name = 'public.orders' AND NOT EXISTS (SELECT FROM reinstate.gap g
        WHERE g.table_name = 'public.orders' AND g.kind = s.kind AND g.until IS NULL)
), closed AS (
    UPDATE reinstate.gap g SET until = now.at FROM now WHERE g.table_name = 'public.orders' AND g.until IS NULL
)
INSERT INTO reinstate.journal_table AS j (table_name, relid, twin, columns, key, suppress, signature, trigger_state,
    installed_at, installed_snapshot, complete_since, good_at, lost_seen, size_cap_mb)
SELECT 'public.orders', 'public.orders'::regclass::oid, 'j_public__orders', '[{"name": "id", "type": "integer", "num": 1, "typid": 23}, {"name": "qty", "type": "integer", "num": 2, "typid": 23}, {"name": "total", "type": "numeric", "num": 3, "typid": 1700}, {"name": "note", "type": "text", "num": 4, "typid": 25}]'::jsonb, '{id}'::text[], '{}'::text[], 8588318044959092463, reinstate.trigger_state('public.orders'::regclass),
       now.at, pg_current_snapshot(), now.at, now.at, reinstate.lost('j_public__orders'), 1024 FROM now
ON CONFLICT (table_name) DO UPDATE SET relid = excluded.relid, twin = excluded.twin, columns = excluded.columns,
    key = excluded.key, suppress = excluded.suppress, signature = excluded.signature,
    trigger_state = excluded.trigger_state, good_at = excluded.good_at, lost_seen = excluded.lost_seen,
    size_cap_mb = excluded.size_cap_mb,
    complete_since = CASE WHEN true THEN excluded.complete_since ELSE j.complete_since END
;
INSERT INTO reinstate.setting VALUES ('made j_public__orders', '9e0beb4ba8b5a654'), ('body j_public__orders', reinstate.function_body('j_public__orders')) ON CONFLICT (name) DO UPDATE SET value = excluded.value;

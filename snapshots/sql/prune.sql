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

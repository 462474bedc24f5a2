-- Pieces: a twin's rows lie in tables that inherit from it, one after the other in time. Capture functions name the
-- piece they write to, so that a write pays for no routing, no constraint and no index; a closed piece gets its indexes,
-- and forgetting drops whole pieces. Changing the piece replaces the functions: nobody waits for a lock.
DROP FUNCTION IF EXISTS reinstate.prune_copy(text, xid8);
DROP FUNCTION IF EXISTS reinstate.prune_swap(text, xid8, timestamptz, text);
DROP FUNCTION IF EXISTS reinstate.prune_mark(text, timestamptz);

-- Bytes of a twin with all its pieces, their indexes and their long values.
CREATE OR REPLACE FUNCTION reinstate.twin_bytes(p_twin text) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(sum(pg_total_relation_size(c.relid)), 0)::bigint
    FROM (SELECT to_regclass(format('reinstate.%I', p_twin))::oid AS relid
          UNION SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = to_regclass(format('reinstate.%I', p_twin))) c
$$;

-- How large a piece becomes before the next one is begun: small enough to be read from end to end while it is without
-- an index, large enough that there are few.
CREATE OR REPLACE FUNCTION reinstate.piece_bytes(p_cap_mb int) RETURNS bigint
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT least(greatest(p_cap_mb::bigint * 1048576 / 64, 131072), 16777216)
$$;

-- Record the history that went with pieces that are gone, or are no longer part of their twin.
CREATE OR REPLACE FUNCTION reinstate.note_lost_pieces() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    WITH lost AS (
        DELETE FROM reinstate.piece p USING reinstate.journal_table j
        WHERE p.twin = j.twin AND p.closed_at IS NOT NULL AND reinstate.piece_of(p.twin, p.name) IS NULL
        RETURNING j.table_name, p.name, p.made_at
    )
    INSERT INTO reinstate.gap (table_name, kind, detail, at, until)
    SELECT l.table_name, 'history-missing', format('reinstate.%s, a piece of the twin, is gone', l.name), l.made_at,
           clock_timestamp() FROM lost l;
$$;

-- Begin a new piece. Returns its name; NULL when triggers or functions are not as the last tick saw them, because
-- replacing the functions would hide that. The room is what the cap leaves beside the other pieces.
CREATE OR REPLACE FUNCTION reinstate.turn(p_table text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    j reinstate.journal_table;
    v_piece text;
    v_room bigint;
    v_text text;
BEGIN
    SELECT * INTO STRICT j FROM reinstate.journal_table t WHERE t.table_name = p_table FOR UPDATE;
    IF j.trigger_state <> reinstate.trigger_state(j.relid) OR reinstate.function_body(j.twin) IS DISTINCT FROM
            (SELECT s.value FROM reinstate.setting s WHERE s.name = 'body ' || j.twin) THEN
        RETURN NULL;
    END IF;
    v_piece := j.twin || '$' || (j.pieces + 1);
    v_room := greatest(j.size_cap_mb::bigint * 1048576 - reinstate.twin_bytes(j.twin), 0);
    -- Nothing in it dies, and it will be dropped whole: a vacuum for its inserts would be work for nothing.
    EXECUTE format('CREATE TABLE reinstate.%I () INHERITS (reinstate.%I)
                    WITH (autovacuum_vacuum_insert_threshold = -1)', v_piece, j.twin);
    UPDATE reinstate.piece p SET closed_at = clock_timestamp(), closed_xid = pg_snapshot_xmax(pg_current_snapshot())
    WHERE p.twin = j.twin AND p.closed_at IS NULL;
    INSERT INTO reinstate.piece (name, twin, number, made_at) VALUES (v_piece, j.twin, j.pieces + 1, clock_timestamp());
    FOREACH v_text IN ARRAY j.capture LOOP
        EXECUTE replace(replace(v_text, '@rj_piece@', v_piece), '@rj_room@', v_room::text);
    END LOOP;
    -- The last field is the function's own version: all before it must still be what it was.
    IF regexp_replace(j.trigger_state, ':\d+( |$)', '\1', 'g')
            <> regexp_replace(reinstate.trigger_state(j.relid), ':\d+( |$)', '\1', 'g') THEN
        RAISE EXCEPTION 'the triggers of % were changed meanwhile', p_table USING ERRCODE = 'lock_not_available';
    END IF;
    UPDATE reinstate.journal_table t SET pieces = j.pieces + 1, piece = v_piece, room = v_room,
        trigger_state = reinstate.trigger_state(j.relid) WHERE t.table_name = p_table;
    INSERT INTO reinstate.setting VALUES ('body ' || j.twin, reinstate.function_body(j.twin))
    ON CONFLICT (name) DO UPDATE SET value = excluded.value;
    PERFORM reinstate.note_lost_pieces();
    RETURN v_piece;
END $$;

-- What a tick leaves to do: begin new pieces, give the closed ones their indexes, record history that is gone. What is
-- busy now is done at a later tick. Returns how many pieces were begun or sealed.
CREATE OR REPLACE FUNCTION reinstate.tend() RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms' AS $$
DECLARE
    v_row record;
    v_done int := 0;
    v_left bigint := 67108864;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('reinstate.change', 0)) THEN
        RETURN 0;
    END IF;
    PERFORM reinstate.note_lost_pieces();
    FOR v_row IN
        SELECT j.table_name, pg_relation_size(b.relid) AS bytes, clock_timestamp() - p.made_at AS age,
               reinstate.piece_bytes(j.size_cap_mb) AS enough
        FROM reinstate.journal_table j JOIN reinstate.piece p ON p.name = j.piece
        CROSS JOIN LATERAL (SELECT reinstate.piece_of(j.twin, j.piece)) AS b(relid) WHERE b.relid IS NOT NULL
    LOOP
        CONTINUE WHEN NOT (v_row.bytes >= v_row.enough OR v_row.bytes >= v_row.enough / 16 AND v_row.age > '1 day'
                           OR v_row.bytes > 0 AND v_row.age > '7 days');
        BEGIN
            IF reinstate.turn(v_row.table_name) IS NOT NULL THEN
                v_done := v_done + 1;
            END IF;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            RAISE LOG 'reinstate: no new piece for % now: %', v_row.table_name, SQLERRM;
        END;
    END LOOP;
    -- A writer that still had the old function when it began has ended by then. Large pieces wait a minute: at the
    -- moment of a mass change a tick must not take long.
    FOR v_row IN
        SELECT p.name, p.twin, pg_relation_size(b.relid) AS bytes FROM reinstate.piece p
        CROSS JOIN LATERAL (SELECT reinstate.piece_of(p.twin, p.name)) AS b(relid)
        WHERE p.sealed_at IS NULL AND p.closed_xid < pg_snapshot_xmin(pg_current_snapshot()) AND b.relid IS NOT NULL
            AND (pg_relation_size(b.relid) < 33554432 OR p.closed_at < clock_timestamp() - interval '1 minute')
        ORDER BY p.closed_at
    LOOP
        EXIT WHEN v_left <= 0;
        v_left := v_left - v_row.bytes;
        BEGIN
            -- By transaction, by run, and (rows lie in that order) by what came first.
            EXECUTE format('CREATE INDEX ON reinstate.%I (rj_xid)', v_row.name);
            EXECUTE format('CREATE INDEX ON reinstate.%I (rj_run) WHERE rj_run IS NOT NULL', v_row.name);
            EXECUTE format('CREATE INDEX ON reinstate.%I USING brin (rj_seq)', v_row.name);
            EXECUTE format('ANALYZE reinstate.%I', v_row.name);
            UPDATE reinstate.piece p SET sealed_at = clock_timestamp() WHERE p.name = v_row.name;
            v_done := v_done + 1;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            RAISE LOG 'reinstate: reinstate.% is sealed later: %', v_row.name, SQLERRM;
        END;
    END LOOP;
    RETURN v_done;
END $$;

-- The newest tick before p_before: every transaction it has seen may be forgotten, whole.
CREATE OR REPLACE FUNCTION reinstate.prune_point(p_before timestamptz)
RETURNS TABLE (at timestamptz, before_xid xid8)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.at, pg_snapshot_xmin(t.snapshot) FROM reinstate.tick t WHERE t.at <= p_before ORDER BY t.at DESC LIMIT 1
$$;

-- The first tick that lets so many of the oldest pieces go that p_share of the cap remains; no row while the twin fits.
CREATE OR REPLACE FUNCTION reinstate.prune_point_by_size(p_table text, p_share float8)
RETURNS TABLE (at timestamptz, before_xid xid8)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    j reinstate.journal_table;
    v_piece record;
    v_over bigint;
    v_last xid8;
BEGIN
    SELECT * INTO STRICT j FROM reinstate.journal_table t WHERE t.table_name = p_table;
    IF reinstate.twin_bytes(j.twin) <= j.size_cap_mb::bigint * 1048576 THEN
        RETURN;
    END IF;
    v_over := reinstate.twin_bytes(j.twin) - (j.size_cap_mb * 1048576.0 * p_share)::bigint;
    FOR v_piece IN
        SELECT reinstate.piece_of(p.twin, p.name) AS relid, p.closed_xid FROM reinstate.piece p
        WHERE p.twin = j.twin AND p.closed_at IS NOT NULL ORDER BY p.number
    LOOP
        EXIT WHEN v_over <= 0;
        CONTINUE WHEN v_piece.relid IS NULL;
        v_last := greatest(v_last, v_piece.closed_xid);
        v_over := v_over - pg_total_relation_size(v_piece.relid);
    END LOOP;
    RETURN QUERY SELECT t.at, pg_snapshot_xmin(t.snapshot) FROM reinstate.tick t
        WHERE pg_snapshot_xmin(t.snapshot) >= v_last ORDER BY t.at LIMIT 1;
END $$;

-- Forget every transaction below p_before: pieces that hold nothing younger are dropped, from the others their rows are
-- deleted. Readers of the twin wait, writers of the app do not: they never touch the parent. Returns the rows forgotten.
CREATE OR REPLACE FUNCTION reinstate.forget(p_table text, p_before xid8, p_at timestamptz) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    j reinstate.journal_table;
    v_piece record;
    v_rows bigint;
    v_forgotten bigint := 0;
    v_dropped boolean := false;
    v_younger boolean;
BEGIN
    SELECT * INTO STRICT j FROM reinstate.journal_table t WHERE t.table_name = p_table;
    EXECUTE format('LOCK TABLE ONLY reinstate.%I IN ACCESS EXCLUSIVE MODE', j.twin);
    FOR v_piece IN
        SELECT p.name FROM reinstate.piece p WHERE p.twin = j.twin AND p.closed_xid <= p_before
            AND reinstate.piece_of(p.twin, p.name) IS NOT NULL ORDER BY p.number
    LOOP
        -- Its writers have ended. Should one have begun with an old function, this waits for it.
        EXECUTE format('LOCK TABLE reinstate.%I IN ACCESS EXCLUSIVE MODE', v_piece.name);
        EXECUTE format('SELECT EXISTS (SELECT FROM reinstate.%I WHERE rj_xid >= $1)', v_piece.name)
        INTO v_younger USING p_before;
        CONTINUE WHEN v_younger;
        EXECUTE format('SELECT count(*) FROM reinstate.%I', v_piece.name) INTO v_rows;
        EXECUTE format('DROP TABLE reinstate.%I', v_piece.name);
        DELETE FROM reinstate.piece p WHERE p.name = v_piece.name;
        v_forgotten := v_forgotten + v_rows;
        v_dropped := true;
    END LOOP;
    EXECUTE format('DELETE FROM reinstate.%I WHERE rj_xid < $1', j.twin) USING p_before;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    UPDATE reinstate.journal_table t SET complete_since = greatest(t.complete_since, p_at) WHERE t.table_name = p_table;
    -- What became free is room again.
    IF v_dropped AND j.room < j.size_cap_mb::bigint * 524288 THEN
        PERFORM reinstate.turn(p_table);
    END IF;
    RETURN v_forgotten + v_rows;
END $$;

-- Ticks and closed gaps older than what every table still has.
CREATE OR REPLACE FUNCTION reinstate.prune_ticks() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM reinstate.tick t WHERE t.at < (SELECT min(j.complete_since) FROM reinstate.journal_table j);
    DELETE FROM reinstate.gap g WHERE g.until < (SELECT min(j.complete_since) FROM reinstate.journal_table j);
$$;

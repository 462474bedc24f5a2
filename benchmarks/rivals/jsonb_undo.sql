-- A rival: the usual audit log. Row triggers keep each row's old and new state as jsonb; undo puts the state before the
-- run's first write back. Tuned: one log per table with typed keys and a plain trigger function of its own (no dynamic
-- SQL per row), an index for the run, set operations over temporary tables with statistics, and the app's trigger off.
-- It has no merge and no checks: later work on the same rows is overwritten. Run as the owner of the tables.
CREATE SCHEMA audit;
GRANT USAGE ON SCHEMA audit TO PUBLIC;

CREATE FUNCTION audit.keys(p_table regclass) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT array_agg(quote_ident(a.attname) ORDER BY k.pos)
    FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(num, pos)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num
    WHERE i.indrelid = p_table AND i.indisprimary
$$;

DO $make$
DECLARE
    v_table regclass;
    v_log text;
    v_keys text[];
BEGIN
    FOREACH v_table IN ARRAY ARRAY['shop.customers', 'shop.products', 'shop.orders', 'shop.order_items',
                                   'shop.payments', 'shop.events']::regclass[] LOOP
        v_log := format('audit.%I', (SELECT relname FROM pg_class WHERE oid = v_table));
        v_keys := audit.keys(v_table);
        EXECUTE format($sql$
            CREATE TABLE %1$s AS SELECT %3$s, 0::bigint AS seq, ''::name AS actor, ''::text AS run, 'I'::"char" AS op,
                '0'::xid8 AS xid, now() AS at, '{}'::jsonb AS old, '{}'::jsonb AS new FROM %2$s LIMIT 0;
            ALTER TABLE %1$s ALTER seq SET NOT NULL, ALTER seq ADD GENERATED ALWAYS AS IDENTITY;
            CREATE INDEX ON %1$s (run, actor);
            CREATE FUNCTION %1$s() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $f$
            BEGIN
                IF TG_OP = 'INSERT' THEN
                    INSERT INTO %1$s (%3$s, actor, run, op, xid, at, new) VALUES (%4$s, session_user,
                        current_setting('reinstate.run', true), 'I', pg_current_xact_id(), now(), to_jsonb(NEW));
                ELSIF TG_OP = 'UPDATE' THEN
                    INSERT INTO %1$s (%3$s, actor, run, op, xid, at, old, new) VALUES (%5$s, session_user,
                        current_setting('reinstate.run', true), 'U', pg_current_xact_id(), now(), to_jsonb(OLD),
                        to_jsonb(NEW));
                ELSE
                    INSERT INTO %1$s (%3$s, actor, run, op, xid, at, old) VALUES (%5$s, session_user,
                        current_setting('reinstate.run', true), 'D', pg_current_xact_id(), now(), to_jsonb(OLD));
                END IF;
                RETURN NULL;
            END $f$;
            CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON %2$s FOR EACH ROW EXECUTE FUNCTION %1$s();
            $sql$, v_log, v_table, array_to_string(v_keys, ', '),
            (SELECT string_agg('NEW.' || k, ', ') FROM unnest(v_keys) AS k),
            (SELECT string_agg('OLD.' || k, ', ') FROM unnest(v_keys) AS k));
    END LOOP;
END $make$;

-- Undo one run. Returns the rows written. The undo is logged like any other write.
CREATE FUNCTION audit.undo(p_actor name, p_run text) RETURNS bigint LANGUAGE plpgsql
SET work_mem = '64MB' AS $undo$
DECLARE
    v_parents_first regclass[] := ARRAY['shop.customers', 'shop.products', 'shop.orders', 'shop.order_items',
                                        'shop.payments', 'shop.events'];
    v_table regclass;
    v_name text;
    v_keys text[];
    v_same text;
    v_columns text;
    v_rows bigint;
    v_all bigint := 0;
BEGIN
    LOCK TABLE shop.customers, shop.products, shop.orders, shop.order_items, shop.payments, shop.events
        IN SHARE ROW EXCLUSIVE MODE;
    ALTER TABLE shop.orders DISABLE TRIGGER orders_touch;
    FOREACH v_table IN ARRAY v_parents_first LOOP
        v_name := (SELECT relname FROM pg_class WHERE oid = v_table);
        v_keys := audit.keys(v_table);
        EXECUTE format('CREATE TEMP TABLE %I ON COMMIT DROP AS SELECT DISTINCT ON (%2$s) %2$s, op, old FROM audit.%1$I
                        WHERE run = $1 AND actor = $2 ORDER BY %2$s, seq', v_name, array_to_string(v_keys, ', '))
        USING p_run, p_actor;
        EXECUTE format('ANALYZE pg_temp.%I', v_name);
    END LOOP;
    -- Children first: what the run inserted goes away.
    FOR i IN REVERSE array_length(v_parents_first, 1) .. 1 LOOP
        v_table := v_parents_first[i];
        v_name := (SELECT relname FROM pg_class WHERE oid = v_table);
        v_same := (SELECT string_agg(format('t.%1$s = u.%1$s', k), ' AND ') FROM unnest(audit.keys(v_table)) AS k);
        EXECUTE format('DELETE FROM %s AS t USING pg_temp.%I AS u WHERE u.op = ''I'' AND %s', v_table, v_name, v_same);
        GET DIAGNOSTICS v_rows = ROW_COUNT;
        v_all := v_all + v_rows;
    END LOOP;
    FOREACH v_table IN ARRAY v_parents_first LOOP
        v_name := (SELECT relname FROM pg_class WHERE oid = v_table);
        v_keys := audit.keys(v_table);
        v_same := (SELECT string_agg(format('t.%1$s = u.%1$s', k), ' AND ') FROM unnest(v_keys) AS k);
        v_columns := (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
                      WHERE attrelid = v_table AND attnum > 0 AND NOT attisdropped
                          AND NOT quote_ident(attname) = ANY (v_keys));
        EXECUTE format('UPDATE %s AS t SET (%s) = ROW(%s) FROM pg_temp.%I AS u,
                            LATERAL jsonb_populate_record(NULL::%1$s, u.old) AS r WHERE u.op <> ''I'' AND %5$s',
                       v_table, v_columns,
                       (SELECT string_agg('r.' || c, ', ') FROM unnest(string_to_array(v_columns, ', ')) AS c),
                       v_name, v_same);
        GET DIAGNOSTICS v_rows = ROW_COUNT;
        v_all := v_all + v_rows;
        EXECUTE format('INSERT INTO %1$s SELECT r.* FROM pg_temp.%2$I AS u,
                            LATERAL jsonb_populate_record(NULL::%1$s, u.old) AS r
                        WHERE u.op <> ''I'' AND NOT EXISTS (SELECT FROM %1$s AS t WHERE %3$s)', v_table, v_name, v_same);
        GET DIAGNOSTICS v_rows = ROW_COUNT;
        v_all := v_all + v_rows;
    END LOOP;
    SET CONSTRAINTS ALL IMMEDIATE;
    ALTER TABLE shop.orders ENABLE TRIGGER orders_touch;
    RETURN v_all;
END $undo$;

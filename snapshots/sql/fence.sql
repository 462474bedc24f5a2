-- The fence, and switching the app's own triggers: what the recoverer may have done by the owner, and nothing more.

-- The app's relations: everything in the schemas of journaled tables that the installer has owner's rights on. A
-- schema counts by the name too: its journaled tables may be gone, or just come back.
CREATE OR REPLACE FUNCTION reinstate.app_relations() RETURNS TABLE (relid oid, name text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.oid, n.nspname || '.' || c.relname
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'f') AND n.nspname <> 'reinstate'
        AND (c.relnamespace IN (SELECT k.relnamespace FROM reinstate.journal_table j JOIN pg_class k ON k.oid = j.relid)
            OR n.nspname IN (SELECT split_part(j.table_name, '.', 1) FROM reinstate.journal_table j))
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
    -- A fence stands although there was nothing to take: a grant may come back with a lost table. No relation has this
    -- name, so that lowering gives nothing for it.
    INSERT INTO reinstate.fenced (ref, role, table_name, privilege, grantable)
    SELECT p_ref, p_role, '-.-', 'NONE', false
    WHERE NOT EXISTS (SELECT FROM reinstate.fenced f
                      WHERE f.ref = p_ref AND f.role = p_role AND f.restored_at IS NULL);
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

-- Keys, foreign keys, secondary indexes, sequences and the app's own trigger. Run as the installer.
SET maintenance_work_mem = '256MB';
ALTER TABLE shop.customers ADD PRIMARY KEY (id), ADD UNIQUE (email);
ALTER TABLE shop.products ADD PRIMARY KEY (id), ADD UNIQUE (sku);
ALTER TABLE shop.orders ADD PRIMARY KEY (id);
ALTER TABLE shop.order_items ADD PRIMARY KEY (order_id, line);
ALTER TABLE shop.payments ADD PRIMARY KEY (id);
ALTER TABLE shop.events ADD PRIMARY KEY (id);
CREATE INDEX orders_customer ON shop.orders (customer_id);
CREATE INDEX orders_placed ON shop.orders (placed_at);
CREATE INDEX items_product ON shop.order_items (product_id);
CREATE INDEX payments_order ON shop.payments (order_id);
CREATE INDEX events_customer_at ON shop.events (customer_id, at);
ALTER TABLE shop.orders ADD FOREIGN KEY (customer_id) REFERENCES shop.customers (id);
ALTER TABLE shop.order_items ADD FOREIGN KEY (order_id) REFERENCES shop.orders (id),
    ADD FOREIGN KEY (product_id) REFERENCES shop.products (id);
ALTER TABLE shop.payments ADD FOREIGN KEY (order_id) REFERENCES shop.orders (id);
ALTER TABLE shop.events ADD FOREIGN KEY (customer_id) REFERENCES shop.customers (id);
SELECT setval(pg_get_serial_sequence('shop.customers', 'id'), max(id)) FROM shop.customers;
SELECT setval(pg_get_serial_sequence('shop.orders', 'id'), max(id)) FROM shop.orders;
CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.updated_at := clock_timestamp(); RETURN NEW; END $$;
CREATE TRIGGER orders_touch BEFORE UPDATE ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.touch();
GRANT USAGE ON SCHEMA shop TO bench_workflow, bench_clerk;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shop TO bench_workflow, bench_clerk;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA shop TO bench_workflow, bench_clerk;

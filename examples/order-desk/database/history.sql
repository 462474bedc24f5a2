-- Two years of history up to the setting desk.anchor (a timestamptz): 4,000 customers, 400 products, 50,000 orders
-- with about 100,000 items. The same anchor always gives the same rows. Run by desk_owner after schema.sql, before
-- triggers.sql.
CREATE FUNCTION pg_temp.chance(n bigint, salt bigint) RETURNS double precision LANGUAGE sql IMMUTABLE AS $$
    SELECT (hashint8extended(n, salt) & 2147483647) / 2147483648.0::double precision
$$;

CREATE FUNCTION pg_temp.key(kind text, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT md5('order-desk/' || kind || '/' || n)::uuid
$$;

CREATE FUNCTION pg_temp.anchor() RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT current_setting('desk.anchor')::timestamptz
$$;

CREATE FUNCTION pg_temp.region(n bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT (ARRAY['north', 'north-east', 'east', 'south-east', 'south', 'south-west', 'west', 'north-west'])[n % 8 + 1]
$$;

INSERT INTO desk.customers (id, name, email, region, created_at)
SELECT pg_temp.key('customer', n),
       (ARRAY['Ada', 'Ben', 'Cleo', 'Dan', 'Eva', 'Finn', 'Gil', 'Hana', 'Ines', 'Jon'])[n % 10 + 1] || ' ' ||
       (ARRAY['Abel', 'Brandt', 'Costa', 'Dubois', 'Eriksen', 'Farkas', 'Greco', 'Haas', 'Ito', 'Jansen', 'Klein'])
           [n % 11 + 1],
       'customer' || n || '@example.com', pg_temp.region(n),
       pg_temp.anchor() - interval '900 days' * (0.82 + 0.18 * pg_temp.chance(n, 1))
FROM generate_series(1, 4000) AS n;

INSERT INTO desk.products (sku, name, price, stock, updated_at)
SELECT 'SKU-' || to_char(n, 'FM0000'),
       (ARRAY['Lamp', 'Shelf', 'Chair', 'Mug', 'Rug', 'Clock', 'Frame', 'Vase'])[n % 8 + 1] || ' no. ' || n,
       round((4 + 90 * pg_temp.chance(n, 2))::numeric, 2), 2000 + (3000 * pg_temp.chance(n, 3))::integer,
       pg_temp.anchor() - interval '1 day'
FROM generate_series(1, 400) AS n
UNION ALL
SELECT 'TEST-0001', 'Test article, never sold', 19.90, 1000, pg_temp.anchor() - interval '1 day';

CREATE TEMPORARY TABLE item AS
SELECT n AS order_n, (n - 1) * 3 + k AS n, 'SKU-' || to_char(1 + floor(400 * pg_temp.chance(n * 3 + k, 4)), 'FM0000') AS sku,
       1 + floor(4 * pg_temp.chance(n * 3 + k, 5))::integer AS quantity
FROM generate_series(1, 50000) AS n, generate_series(1, 3) AS k
WHERE k <= 1 + n % 3;

CREATE TEMPORARY TABLE sale AS
SELECT n, chance, placed_at, total, pg_temp.anchor() - placed_at AS age
FROM (
    SELECT n, pg_temp.chance(n, 6) AS chance,
           pg_temp.anchor() - interval '730 days' * (1 - n / 50000.0) - interval '6 hours' * pg_temp.chance(n, 7)
               - interval '10 minutes' AS placed_at
    FROM generate_series(1, 50000) AS n
) AS placed
JOIN (
    SELECT i.order_n AS n, sum(i.quantity * p.price) AS total
    FROM item AS i JOIN desk.products AS p USING (sku) GROUP BY i.order_n
) AS priced USING (n);

ALTER TABLE sale ADD COLUMN status desk.order_status;
UPDATE sale SET status = (CASE
    WHEN age > interval '60 days' THEN
        CASE WHEN chance < 0.93 THEN 'delivered' WHEN chance < 0.99 THEN 'cancelled' ELSE 'on_hold' END
    WHEN age > interval '20 days' THEN -- invoices are open for sixty days
        CASE WHEN chance < 0.45 THEN 'delivered' WHEN chance < 0.65 THEN 'shipped' WHEN chance < 0.75 THEN 'packed'
             WHEN chance < 0.97 THEN 'new' ELSE 'cancelled' END
    ELSE
        CASE WHEN chance < 0.35 THEN 'shipped' WHEN chance < 0.50 THEN 'packed' WHEN chance < 0.60 THEN 'picking'
             WHEN chance < 0.75 THEN 'paid' WHEN chance < 0.98 THEN 'new' ELSE 'cancelled' END
    END)::desk.order_status;

INSERT INTO desk.orders
    (id, customer_id, reference, status, total, paid, placed_at, region, priority, attributes, tags, note, updated_at)
SELECT pg_temp.key('order', n), pg_temp.key('customer', 1 + floor(4000 * pg_temp.chance(n, 8))::bigint),
       'OD-' || to_char(n, 'FM000000'), status, total,
       CASE WHEN status IN ('new', 'on_hold', 'cancelled') THEN 0 ELSE total END, placed_at,
       pg_temp.region(floor(8 * pg_temp.chance(n, 9))::bigint), desk.priority_of(status, total),
       jsonb_build_object('channel', (ARRAY['shop', 'phone', 'market'])[n % 3 + 1], 'gift', n % 17 = 0),
       CASE WHEN n % 5 = 0 THEN ARRAY['returning'] WHEN n % 11 = 0 THEN ARRAY['express', 'fragile'] ELSE '{}' END,
       CASE WHEN n % 29 = 0 THEN 'Leave with the neighbour' END, placed_at + interval '1 hour'
FROM sale;

INSERT INTO desk.order_items (id, order_id, sku, quantity, unit_price)
SELECT pg_temp.key('item', i.n), pg_temp.key('order', i.order_n), i.sku, i.quantity, p.price
FROM item AS i JOIN desk.products AS p USING (sku);

INSERT INTO desk.payments (id, order_id, amount, paid_at)
SELECT pg_temp.key('payment', n), pg_temp.key('order', n), total, placed_at + interval '5 minutes' * chance
FROM sale WHERE status NOT IN ('new', 'on_hold', 'cancelled');

INSERT INTO desk.status_changes (id, order_id, status, changed_at)
SELECT pg_temp.key('status', n), pg_temp.key('order', n), status, placed_at + interval '9 minutes' * chance
FROM sale WHERE status NOT IN ('new', 'paid');

INSERT INTO desk.deliveries (id, sku, quantity, arrived_at, applied)
SELECT pg_temp.key('delivery', n), 'SKU-' || to_char(1 + n % 400, 'FM0000'),
       50 + floor(200 * pg_temp.chance(n, 10))::integer, pg_temp.anchor() - interval '730 days' * (1 - n / 2400.0), true
FROM generate_series(1, 2399) AS n;

UPDATE desk.products AS p SET received = d.quantity
FROM (SELECT sku, sum(quantity) AS quantity FROM desk.deliveries GROUP BY sku) AS d WHERE d.sku = p.sku;

-- Once a week the desk removes what is older than two years.
INSERT INTO desk.tidy_ups (id, region, placed_before, removed, requested_at)
SELECT pg_temp.key('tidy-up', 8 * week + n), pg_temp.region(n), at - interval '730 days',
       1 + floor(5 * pg_temp.chance(8 * week + n, 11))::integer, at
FROM generate_series(1, 104) AS week, generate_series(0, 7) AS n,
     LATERAL (SELECT pg_temp.anchor() - interval '7 days' * week AS at) AS asked;

DROP TABLE item, sale;

CREATE INDEX orders_reference ON desk.orders (reference);
CREATE INDEX orders_customer ON desk.orders (customer_id);
CREATE INDEX orders_region_placed ON desk.orders (region, placed_at);
CREATE INDEX order_items_order ON desk.order_items (order_id);
CREATE INDEX order_items_sku ON desk.order_items (sku);
CREATE INDEX payments_order ON desk.payments (order_id);
CREATE INDEX status_changes_order ON desk.status_changes (order_id);
CREATE INDEX deliveries_sku ON desk.deliveries (sku);
CREATE INDEX deliveries_open ON desk.deliveries (arrived_at) WHERE NOT applied;

ANALYZE desk.customers, desk.products, desk.orders, desk.order_items, desk.payments, desk.status_changes,
        desk.deliveries, desk.tidy_ups;

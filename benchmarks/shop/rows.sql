-- Rows by arithmetic, so that every shop of one size is the same. Sizes come as settings (bench.orders and its like).
SET TimeZone = 'UTC';
INSERT INTO shop.customers (id, email, name, city, balance, since, profile)
SELECT n, 'customer' || n || '@example.com', 'Customer ' || md5('n' || n),
       (ARRAY['Wien', 'Graz', 'Linz', NULL, 'Salzburg'])[1 + n % 5], (n::bigint * 7919 % 1000000) / 100.0,
       '2020-01-01'::timestamptz + n % 50000 * interval '17 minutes',
       CASE WHEN n % 3 > 0 THEN jsonb_build_object('tier', n % 4, 'news', n % 2 = 0, 'tags', jsonb_build_array(n % 7)) END
FROM generate_series(1, current_setting('bench.customers')::bigint) AS n;
INSERT INTO shop.products (id, sku, name, price, stock, attributes)
SELECT n, 'SKU-' || lpad(n::text, 8, '0'), 'Product ' || md5('p' || n), 1 + (n::bigint * 104729 % 50000) / 100.0, n * 31 % 500,
       jsonb_build_object('colour', (ARRAY['red', 'green', 'blue'])[1 + n % 3], 'weight', n % 900)
FROM generate_series(1, current_setting('bench.products')::int) AS n;
INSERT INTO shop.orders (id, customer_id, status, total, placed_at, updated_at, address, note)
SELECT n, 1 + n::bigint * 7919 % current_setting('bench.customers')::bigint,
       (ARRAY['new', 'paid', 'sent', 'sent', 'sent', 'closed'])[1 + n % 6], (n::bigint * 6007 % 90000) / 100.0,
       '2024-01-01'::timestamptz + n * interval '13 seconds', '2024-01-02'::timestamptz + n * interval '13 seconds',
       'Street ' || md5('s' || n % 9973) || ' ' || n % 99,
       CASE WHEN n % 4 = 0 THEN 'leave at the door, ' || md5('o' || n) END
FROM generate_series(1, current_setting('bench.orders')::bigint) AS n;
INSERT INTO shop.order_items (order_id, line, title, product_id, qty, price, discount, meta)
SELECT o, line, 'Product ' || left(md5('t' || o * line % 9973), 12), 1 + (o * 31 + line * 7) % current_setting('bench.products')::int,
       1 + (o + line) % 5, 1 + (o * 733 % 9000) / 100.0, CASE WHEN o % 10 = 0 THEN 5.5 END,
       CASE WHEN (o + line) % 4 = 0 THEN jsonb_build_object('gift', line, 'text', md5('i' || o)) END
FROM generate_series(1, current_setting('bench.orders')::bigint) AS o
CROSS JOIN LATERAL generate_series(1, 2 + (o % 5 = 0)::int) AS line;
INSERT INTO shop.payments (id, order_id, amount, method, paid_at)
SELECT md5('payment' || n)::uuid, 1 + n * 5 / 3 % current_setting('bench.orders')::bigint, (n::bigint * 6007 % 90000) / 100.0,
       (ARRAY['card', 'transfer', 'invoice'])[1 + n % 3], '2024-01-01'::timestamptz + n * interval '21 seconds'
FROM generate_series(1, current_setting('bench.payments')::bigint) AS n;
INSERT INTO shop.events (id, customer_id, payment_id, kind, at, payload)
SELECT md5('event' || n)::uuid, 1 + n::bigint * 3571 % current_setting('bench.customers')::bigint,
       CASE WHEN n % 3 = 0 THEN md5('payment' || 1 + n % current_setting('bench.payments')::bigint)::uuid END,
       (ARRAY['visit', 'basket', 'order', 'mail'])[1 + n % 4], '2024-01-01'::timestamptz + n * interval '14 seconds',
       jsonb_build_object('page', '/p/' || n % 977, 'ms', n * 17 % 3000, 'agent', md5('a' || n % 51))
FROM generate_series(1, current_setting('bench.events')::bigint) AS n;

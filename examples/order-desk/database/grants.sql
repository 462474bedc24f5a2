-- What each role of the app needs and no more; run by desk_owner. The roles of Reinstate get theirs from
-- `reinstate roles --print-sql`.
GRANT USAGE ON SCHEMA desk TO wf_order_intake, wf_payment, wf_status_change, wf_stock_sync, wf_tidy_up, desk_staff,
    desk_judge;

-- A customer may send a changed order again: hence the updates of orders and items.
GRANT SELECT ON desk.customers, desk.products TO wf_order_intake;
GRANT SELECT, INSERT ON desk.orders, desk.order_items TO wf_order_intake;
GRANT UPDATE (status, total, attributes, tags) ON desk.orders TO wf_order_intake;
GRANT UPDATE (quantity, unit_price) ON desk.order_items TO wf_order_intake;
GRANT UPDATE (stock) ON desk.products TO wf_order_intake;

GRANT SELECT ON desk.orders TO wf_payment;
GRANT UPDATE (paid, status) ON desk.orders TO wf_payment;
GRANT SELECT, INSERT ON desk.payments TO wf_payment;

GRANT SELECT ON desk.orders TO wf_status_change;
GRANT UPDATE (status) ON desk.orders TO wf_status_change;
GRANT SELECT, INSERT ON desk.status_changes TO wf_status_change;

GRANT SELECT ON desk.products, desk.deliveries TO wf_stock_sync;
GRANT UPDATE (stock, received) ON desk.products TO wf_stock_sync;
GRANT UPDATE (applied) ON desk.deliveries TO wf_stock_sync;

GRANT SELECT, DELETE ON desk.orders, desk.order_items, desk.status_changes TO wf_tidy_up;
GRANT SELECT, INSERT ON desk.tidy_ups TO wf_tidy_up;

GRANT SELECT ON ALL TABLES IN SCHEMA desk TO desk_staff;
GRANT UPDATE (status, attributes, tags, note) ON desk.orders TO desk_staff;
GRANT INSERT (id, sku, quantity, arrived_at) ON desk.deliveries TO desk_staff;

-- Reads the app to measure a drill; owns nothing here.
GRANT SELECT ON ALL TABLES IN SCHEMA desk TO desk_judge;

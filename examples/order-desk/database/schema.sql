-- Order desk: tables, functions and indexes. Run by desk_owner in an empty database.
CREATE SCHEMA desk;

CREATE TYPE desk.order_status AS ENUM
    ('new', 'paid', 'picking', 'packed', 'shipped', 'delivered', 'on_hold', 'cancelled');

CREATE TABLE desk.customers (
    id          uuid PRIMARY KEY,
    name        text NOT NULL,
    email       text NOT NULL UNIQUE,
    region      text NOT NULL,
    created_at  timestamptz NOT NULL
);

CREATE TABLE desk.products (
    sku         text PRIMARY KEY,
    name        text NOT NULL,
    price       numeric(10, 2) NOT NULL,
    stock       integer NOT NULL,
    received    integer NOT NULL DEFAULT 0, -- all that deliveries ever brought in
    updated_at  timestamptz NOT NULL DEFAULT now()
);

-- reference is what customers quote. It must be unique, but no constraint says so: the shop once numbered by hand.
CREATE TABLE desk.orders (
    id          uuid PRIMARY KEY,
    customer_id uuid NOT NULL REFERENCES desk.customers (id),
    reference   text NOT NULL,
    status      desk.order_status NOT NULL DEFAULT 'new',
    total       numeric(12, 2) NOT NULL,
    paid        numeric(12, 2) NOT NULL DEFAULT 0,
    placed_at   timestamptz NOT NULL,
    region      text NOT NULL,
    priority    smallint NOT NULL DEFAULT 0,
    attributes  jsonb NOT NULL DEFAULT '{}',
    tags        text[] NOT NULL DEFAULT '{}',
    note        text,
    updated_at  timestamptz NOT NULL DEFAULT now()
);

-- order_id has no foreign key: items were imported before their orders when the desk moved to this database.
CREATE TABLE desk.order_items (
    id          uuid PRIMARY KEY,
    order_id    uuid NOT NULL,
    sku         text NOT NULL REFERENCES desk.products (sku),
    quantity    integer NOT NULL,
    unit_price  numeric(10, 2) NOT NULL
);

CREATE TABLE desk.payments (
    id          uuid PRIMARY KEY,
    order_id    uuid NOT NULL REFERENCES desk.orders (id),
    amount      numeric(12, 2) NOT NULL,
    paid_at     timestamptz NOT NULL
);

CREATE TABLE desk.status_changes (
    id          uuid PRIMARY KEY,
    order_id    uuid NOT NULL REFERENCES desk.orders (id),
    status      desk.order_status NOT NULL,
    changed_at  timestamptz NOT NULL
);

-- The supplier's feed: staff enter what arrived, the stock sync workflow books it.
CREATE TABLE desk.deliveries (
    id          uuid PRIMARY KEY,
    sku         text NOT NULL REFERENCES desk.products (sku),
    quantity    integer NOT NULL,
    arrived_at  timestamptz NOT NULL,
    applied     boolean NOT NULL DEFAULT false
);

-- What the desk had tidied up: cancelled orders that nobody ever paid, older than a day the desk names.
CREATE TABLE desk.tidy_ups (
    id            uuid PRIMARY KEY,
    region        text NOT NULL,
    placed_before timestamptz NOT NULL,
    removed       integer NOT NULL,
    requested_at  timestamptz NOT NULL
);

-- Place in the work queue, lower first. Every status has its own tens digit; large orders come first within it.
CREATE FUNCTION desk.priority_of(status desk.order_status, total numeric) RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (CASE status WHEN 'paid' THEN 10 WHEN 'picking' THEN 20 WHEN 'packed' THEN 30 WHEN 'new' THEN 40
                        WHEN 'shipped' THEN 50 WHEN 'on_hold' THEN 60 WHEN 'delivered' THEN 70 ELSE 80 END
            + CASE WHEN total >= 1000 THEN 1 WHEN total >= 250 THEN 2 ELSE 3 END)::smallint
$$;

CREATE FUNCTION desk.touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END
$$;

-- The owner's rights: the workflows may not write the priority themselves.
CREATE FUNCTION desk.set_priority() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE desk.orders SET priority = desk.priority_of(NEW.status, NEW.total)
    WHERE id = NEW.id AND priority IS DISTINCT FROM desk.priority_of(NEW.status, NEW.total);
    RETURN NULL;
END
$$;

-- Run by desk_owner after the history is in, which needs none of them.
CREATE TRIGGER products_touch BEFORE UPDATE ON desk.products
    FOR EACH ROW EXECUTE FUNCTION desk.touch();

CREATE TRIGGER orders_touch BEFORE UPDATE ON desk.orders
    FOR EACH ROW EXECUTE FUNCTION desk.touch();

CREATE TRIGGER orders_priority AFTER INSERT OR UPDATE OF status, total ON desk.orders
    FOR EACH ROW EXECUTE FUNCTION desk.set_priority();

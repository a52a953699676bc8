#[derive(Message)]
#[message(topic = "orders.{region}.placed", key = order_id, version = 2, ttl = "1h", from(1 = OrderPlacedV1))]
pub struct OrderPlaced {
    pub order_id: OrderId,
    pub region: String,
}

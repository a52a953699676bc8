#[derive(Messages)]
pub enum Orders {
    Placed(OrderPlaced),
    Cancelled(OrderCancelled),
}

#[subscriber(tiemout = "10s")]
pub async fn charge(order: OrderPlaced, #[header("x-tenant")] tenant: Tenant) {
    bank.
}

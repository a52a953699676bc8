#[subscriber(concurrency = 16, ordered_by = key, retry(attempts = 6, first = "250ms"))]
pub async fn charge(
    order: OrderPlaced,
    bank: State<Bank>,
    #[header("x-tenant")] tenant: Tenant,
) -> Result<Charged, ChargeError> {
    bank.charge(order, tenant).await
}

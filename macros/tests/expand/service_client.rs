#[service_client(service = "orders", base = "/api/v1", timeout = "2s")]
pub trait Orders {
    #[get("/orders/{id}")]
    async fn order(&self, id: OrderId) -> Result<Option<Order>, CallError>;

    #[post("/orders")]
    #[idempotent]
    async fn place(
        &self,
        #[body] order: &NewOrder,
        #[header("x-tenant")] tenant: Option<&str>,
    ) -> Result<Order, CallError>;
}

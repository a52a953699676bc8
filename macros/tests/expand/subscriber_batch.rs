#[subscriber(topic = "readings", on_unknown = skip, batch(max = 200, wait = "50ms"))]
async fn store(readings: Batch<Reading>, database: State<Database>) -> BatchOutcome {
    database.store(readings).await
}

#[derive(Failure)]
pub enum ChargeError {
    #[fate(retry)]
    Network(BankError),
    #[fate(retry(after = wait))]
    Busy { wait: Duration },
    #[fate(dead_letter)]
    CardRefused,
}

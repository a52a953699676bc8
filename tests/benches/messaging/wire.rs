//! The headers that Interline writes, for raw publishers that are to give the server as much to read
//! and store.

const ID: &str = "01936171-7d5e-7cc0-8000-0123456789ab";

/// Name and value of each, all as text.
pub(crate) const HEADERS: [(&str, &str); 8] = [
    ("content-type", "application/json"),
    ("message-type", "Order"),
    ("message-version", "1"),
    ("message-id", ID),
    ("published-at", "2026-11-25T08:00:00.000Z"),
    ("sender", "interline-tests"),
    ("correlation-id", ID),
    (
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ),
];

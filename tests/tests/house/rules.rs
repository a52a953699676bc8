//! The rules of the house, as data.

/// The rooms of `runtime/src` from the roof down. A room may use those on lower lines; rooms on one
/// line may not use each other. Rooms joined by `+` are one room in several files.
pub(crate) const FLOORS: &[&[&str]] = &[
    &["prelude+__private"],
    &["testing"],
    &["start+launch"],
    &["admin"],
    &["manager"],
    &["plan"],
    &["registry"],
    &["messaging", "http", "grpc", "events"],
    &["handling"],
    &["resilience", "discovery", "security"],
    &["redis"],
    &["observability"],
    &["message"],
    &["config"],
    &["error+clock"],
];

/// A room with adapters: each adapter is a folder that uses the port and nothing else of the room.
pub(crate) struct AdapterRoom {
    pub(crate) room: &'static str,
    pub(crate) adapters: &'static [&'static str],
    /// The modules of the room that an adapter may name.
    pub(crate) port: &'static [&'static str],
}

pub(crate) const ADAPTER_ROOMS: &[AdapterRoom] = &[AdapterRoom {
    room: "messaging",
    adapters: &["memory", "rabbitmq", "kafka", "redis"],
    port: &["port", "options", "planned", "durability"],
}];

/// Client crates and the folders that may name them.
pub(crate) const CLIENTS: &[(&str, &[&str])] = &[
    ("lapin", &["messaging/rabbitmq"]),
    ("rdkafka", &["messaging/kafka"]),
    (
        "redis",
        &[
            "redis",
            "messaging/redis",
            "resilience/redis",
            "events/redis",
        ],
    ),
    ("reqwest", &["http"]),
    ("tonic", &["grpc"]),
    ("etcd_client", &["discovery/etcd"]),
    ("kube", &["discovery/kubernetes"]),
    ("k8s_openapi", &["discovery/kubernetes"]),
    ("hickory_resolver", &["discovery/dns"]),
    ("rusqlite", &["events/sqlite"]),
    ("tokio_postgres", &["events/postgres"]),
    ("deadpool_postgres", &["events/postgres"]),
    ("axum", &["admin"]),
];

/// Crates whose types may stand in a public signature: a new major version of any other would be a
/// new major version of ours.
pub(crate) const PUBLIC: &[&str] = &[
    "std",
    "core",
    "alloc",
    "bytes",
    "http",
    "serde",
    "futures_core",
    "tracing",
    "crate",
    "self",
    "super",
    "Self",
    "interline_macros",
];

/// Types that stand in public signatures although their crate is not in [`PUBLIC`], each with the
/// reason. One that no signature shows any more is a fault: the list only gets shorter by itself.
pub(crate) const EXCEPTIONS: &[(&str, &str)] = &[
    (
        "prost::Message",
        "the protobuf codec is for types that implement it",
    ),
    (
        "tokio::sync::mpsc::Sender",
        "an adapter hands deliveries to the engine through a bounded channel",
    ),
    (
        "tokio::time::Instant",
        "monotonic time is that of tokio, so that tests can pause it",
    ),
    (
        "tower_layer::Layer",
        "the layers for servers are those of tower, whoever runs them",
    ),
    (
        "tower_service::Service",
        "the layers for servers are those of tower, whoever runs them",
    ),
];

/// The line a room is on, counted from the roof, and the name under which it goes.
pub(crate) fn floor(room: &str) -> Option<(usize, &'static str)> {
    FLOORS.iter().enumerate().find_map(|(line, rooms)| {
        let found = rooms
            .iter()
            .find(|name| name.split('+').any(|name| name == room))?;
        Some((line, *found))
    })
}

//! `[brokers.NAME]` of kind `redis`.

use std::time::Duration;

use crate::config::{Faults, Section};
use crate::redis;

const MAX_LENGTH_DEFAULT: u64 = 1_000_000;
const PAYLOAD_DEFAULT: &str = "payload";
const CLAIM_AFTER_DEFAULT: Duration = Duration::from_secs(30);
const LEASE_DEFAULT: Duration = Duration::from_secs(10);
const BLOCK_DEFAULT: Duration = Duration::from_secs(2);
const INSTANCE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(300);
const DELIVERY_LIMIT_DEFAULT: u64 = 20;

/// How the broker is reached and used, beside the keys of [`redis::Settings`].
///
/// | key | default | |
/// |---|---|---|
/// | `payload_field` | `payload` | the field of an entry that holds the body |
/// | `max_length` | 1 000 000 | entries after which a stream is trimmed; 0 for never |
/// | `trim` | `settled` | `settled`: what every group has settled; `always`: the oldest, read or not |
/// | `claim_after` | `30s` | how long an instance may be silent about a message before another takes it |
/// | `delivery_limit` | 20 | how often a message is handed out before it is taken for one that kills its consumers |
/// | `lease` | `10s` | how long the one reader of an ordered subscription may be silent |
/// | `block` | `2s` | how long a reader waits on the server at once |
/// | `instance_timeout` | `5m` | how long an instance with a group of its own may be silent |
/// | `on_terminal` | `fail` | wrong credentials and the like at start: give up, or `retry` |
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) server: redis::Settings,
    pub(super) payload_field: String,
    pub(super) max_length: u64,
    /// Whether the oldest go even if they were not read yet.
    pub(super) trims_unread: bool,
    pub(super) claim_after: Duration,
    pub(super) delivery_limit: u64,
    pub(super) lease: Duration,
    pub(super) block: Duration,
    pub(super) instance_timeout: Duration,
    pub(super) retry_terminal: bool,
    /// Whether there is anything to settle, which takes a connection of its own.
    pub(super) settles: bool,
}

impl Settings {
    /// Reads the section; what is wrong goes to `faults`.
    pub(super) fn read(section: &Section<'_>, faults: &mut Faults) -> Self {
        let day = Duration::from_secs(86_400);
        let second = Duration::from_secs(1);
        let settings = Self {
            server: redis::Settings::read(section, faults),
            payload_field: section
                .string("payload_field", faults)
                .unwrap_or_else(|| PAYLOAD_DEFAULT.to_owned()),
            max_length: section
                .integer::<u64>("max_length", 0..=u64::MAX, faults)
                .unwrap_or(MAX_LENGTH_DEFAULT),
            trims_unread: section.choice("trim", &["settled", "always"], faults) == Some("always"),
            claim_after: section
                .duration("claim_after", second..=day, faults)
                .unwrap_or(CLAIM_AFTER_DEFAULT),
            delivery_limit: section
                .integer::<u64>("delivery_limit", 1..=1_000_000, faults)
                .unwrap_or(DELIVERY_LIMIT_DEFAULT),
            lease: section
                .duration("lease", second..=day, faults)
                .unwrap_or(LEASE_DEFAULT),
            block: section
                .duration(
                    "block",
                    Duration::from_millis(100)..=Duration::from_secs(60),
                    faults,
                )
                .unwrap_or(BLOCK_DEFAULT),
            instance_timeout: section
                .duration("instance_timeout", second..=day, faults)
                .unwrap_or(INSTANCE_TIMEOUT_DEFAULT),
            retry_terminal: section.choice("on_terminal", &["fail", "retry"], faults)
                == Some("retry"),
            settles: true,
        };
        let field = &settings.payload_field;
        if field.is_empty() || field.starts_with("h:") || field.starts_with("h.") {
            let text = "must be a name, and not one of a header (`h:..`)";
            faults.push(section.fault("payload_field", text));
        }
        settings
    }

    /// Those of a broker that only knows channels.
    pub(super) fn of_channels(server: redis::Settings, retry_terminal: bool) -> Self {
        Self {
            server,
            payload_field: PAYLOAD_DEFAULT.to_owned(),
            max_length: MAX_LENGTH_DEFAULT,
            trims_unread: false,
            claim_after: CLAIM_AFTER_DEFAULT,
            delivery_limit: DELIVERY_LIMIT_DEFAULT,
            lease: LEASE_DEFAULT,
            block: BLOCK_DEFAULT,
            instance_timeout: INSTANCE_TIMEOUT_DEFAULT,
            retry_terminal,
            settles: false,
        }
    }
}

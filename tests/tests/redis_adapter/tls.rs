//! TLS: checked certificates, and those of clients.

use std::path::{Path, PathBuf};

use interline::messaging::{BrokerErrorKind, Connected, MessageBroker};
use interline::observability::metrics::InMemoryMetrics;
use interline::testing::{ServerFixture, TlsFiles};
use interline_tests::certificates::{Authority, authority, certificate};
use tokio::time::Instant;

use crate::cases;
use crate::support::{Error, Inbox, LIMIT, Outcome, broker, message, subscription};

cases![
    a_certificate_of_the_client_is_asked_for_and_given,
    a_server_with_a_trusted_certificate_is_spoken_to,
    a_server_with_another_certificate_is_refused,
];

struct Place {
    server: ServerFixture,
    ours: Authority,
    folder: tempfile::TempDir,
    ca_file: PathBuf,
}

impl Place {
    async fn open(require_client_certificate: bool) -> Result<Self, Error> {
        let folder = tempfile::tempdir()?;
        let ours = authority("ours")?;
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, ours.pem())?;
        let (certificate, key) = certificate(&ours, "localhost", folder.path())?;
        let server = ServerFixture::redis()
            .tls(TlsFiles {
                authorities: ca_file.clone(),
                certificate,
                key,
                require_client_certificate,
            })
            .start()
            .await?;
        Ok(Self {
            server,
            ours,
            folder,
            ca_file,
        })
    }

    fn url(&self) -> &str {
        self.server.tls_url().expect("it listens with TLS")
    }

    fn broker(&self, files: &[(&str, &Path)]) -> std::sync::Arc<super::support::Broker> {
        broker(
            self.url(),
            "one",
            &InMemoryMetrics::default(),
            |mut config| {
                for (key, path) in files {
                    let path = path.display().to_string();
                    config.set(&format!("brokers.main.tls.{key}"), path);
                }
                config
            },
        )
    }
}

async fn a_server_with_a_trusted_certificate_is_spoken_to() -> Outcome {
    let place = Place::open(false).await?;
    let broker = place.broker(&[("ca_file", &place.ca_file)]);
    assert_eq!(broker.connect().await?, Connected::Yes);
    let mut inbox = Inbox::open(&broker, subscription("t")).await?;
    broker.publish(message("t", "1")).await?;
    assert_eq!(inbox.take().await, "1");
    broker.disconnect(Instant::now() + LIMIT).await;
    Ok(())
}

async fn a_server_with_another_certificate_is_refused() -> Outcome {
    let place = Place::open(false).await?;
    let theirs = place.folder.path().join("theirs.pem");
    std::fs::write(&theirs, authority("theirs")?.pem())?;
    let broker = place.broker(&[("ca_file", &theirs)]);
    let error = broker.connect().await.expect_err("it is not trusted");
    assert_eq!(error.kind(), BrokerErrorKind::Configuration, "{error}");
    let text = error.to_string();
    assert!(text.contains("TLS handshake with localhost:"), "{text}");
    Ok(())
}

async fn a_certificate_of_the_client_is_asked_for_and_given() -> Outcome {
    let place = Place::open(true).await?;
    let without = place.broker(&[("ca_file", &place.ca_file)]);
    assert!(!matches!(without.connect().await, Ok(Connected::Yes)));
    without.disconnect(Instant::now() + LIMIT).await;
    let (certificate, key) = certificate(&place.ours, "billing", place.folder.path())?;
    let with = place.broker(&[
        ("ca_file", &place.ca_file),
        ("certificate_file", &certificate),
        ("key_file", &key),
    ]);
    assert_eq!(with.connect().await?, Connected::Yes);
    with.disconnect(Instant::now() + LIMIT).await;
    Ok(())
}

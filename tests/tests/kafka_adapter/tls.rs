//! TLS, alone and with passwords: what is trusted, what is refused, and what is said about it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use interline::messaging::kafka::Kafka;
use interline::messaging::{BrokerErrorKind, ConnectionState, MessageBroker};
use interline::testing::{ServerFixture, TlsFiles};
use interline_tests::certificates::{Authority, authority, certificate};
use interline_tests::harness::Case;

use crate::support::{Error, Inbox, Outcome, Stage, close, message, publish, subscription, text};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("tls_and_passwords_are_spoken_end_to_end", spoken),
        Case::new("a_certificate_of_the_client_is_asked_for_and_given", client),
    ]
}

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
        let server = ServerFixture::kafka()
            .user("app", "open-sesame")
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

    /// `localhost:PORT` of the listener without passwords.
    fn plain(&self) -> &str {
        let url = self.server.tls_url().expect("it speaks TLS");
        url.trim_start_matches("kafkas://")
    }

    /// `localhost:PORT` of the one with them.
    fn guarded(&self) -> &str {
        let url = self.server.tls_password_url().expect("it has a user");
        url.trim_start_matches("kafkas://")
    }
}

fn process(stage: &Stage, sasl: &str, files: &[(&str, &Path)]) -> Arc<Kafka> {
    stage.process("one", |mut config| {
        config = config.with("brokers.main.sasl", sasl);
        for (key, path) in files {
            let path = path.display().to_string();
            config = config.with(&format!("brokers.main.tls.{key}"), path);
        }
        config
    })
}

/// There and back, over every kind of client that the adapter has.
async fn works(broker: &Kafka, topic: &str) -> Outcome {
    broker.connect().await?;
    let mut inbox = Inbox::open(broker, subscription(topic)).await?;
    publish(broker, message(topic, "1")).await;
    assert_eq!(text(&inbox.take().await), "1");
    let topology = broker.topology(&[Arc::new(subscription(topic))]);
    assert!(broker.inspect(&topology).await?.is_clean());
    close(broker).await;
    Ok(())
}

/// One error at once, of a kind, in words, and never with the password.
async fn refused(broker: &Kafka, kind: BrokerErrorKind, words: &str) {
    let error = broker.connect().await.expect_err("it is refused");
    assert_eq!(error.to_string(), format!("broker `main`: {words}"));
    assert_eq!(error.kind(), kind);
    assert_eq!(broker.health_check().state, ConnectionState::Failed);
    let publish = broker.publish(message("t", "1")).await;
    let publish = publish.expect_err("there is no way");
    for told in [format!("{error:?}"), format!("{publish:?}")] {
        assert!(
            !told.contains("hunter2") && !told.contains("open-sesame"),
            "{told}"
        );
    }
    close(broker).await;
}

async fn spoken() -> Outcome {
    let place = Place::open(false).await?;
    let ca = [("ca_file", &*place.ca_file)];
    let stage = Stage::at(format!("kafkas://{}", place.plain()));
    works(&process(&stage, "plain", &ca), "tls").await?;
    let guarded = place.guarded();
    let wrong = Stage::at(format!("kafkas://app:hunter2@{guarded}"));
    for mechanism in ["plain", "scram-sha-256", "scram-sha-512"] {
        let right = Stage::at(format!("kafkas://app:open-sesame@{guarded}"));
        works(&process(&right, mechanism, &ca), mechanism).await?;
        let words = format!("{guarded} refused the credentials of user `app`");
        let broker = process(&wrong, mechanism, &ca);
        refused(&broker, BrokerErrorKind::Authentication, &words).await;
    }

    let distrusted = |at: &str| {
        format!(
            "{at} shows a certificate that is not trusted: it is not signed by an authority of \
             `brokers.main.tls.ca_file` (without which the system's are trusted), has expired, or is for \
             another name"
        )
    };
    let configuration = BrokerErrorKind::Configuration;
    let theirs = place.folder.path().join("theirs.pem");
    std::fs::write(&theirs, authority("theirs")?.pem())?;
    // Told before any password is sent.
    for files in [&[("ca_file", &*theirs)][..], &[]] {
        let broker = process(&wrong, "plain", files);
        refused(&broker, configuration, &distrusted(guarded)).await;
    }
    // The certificate is for `localhost`.
    let elsewhere = guarded.replace("localhost", "127.0.0.1");
    let stage = Stage::at(format!("kafkas://app:open-sesame@{elsewhere}"));
    let broker = process(&stage, "plain", &ca);
    refused(&broker, configuration, &distrusted(&elsewhere)).await;

    let missing = place.folder.path().join("missing.pem");
    let stage = Stage::at(format!("kafkas://{}", place.plain()));
    let broker = process(&stage, "plain", &[("ca_file", &missing)]);
    let error = broker.connect().await.expect_err("there is no such file");
    assert_eq!(error.kind(), configuration);
    let said = error.to_string();
    assert!(
        said.contains("`tls.ca_file`") && said.contains("missing.pem"),
        "{said}"
    );
    close(&broker).await;
    Ok(())
}

async fn client() -> Outcome {
    let place = Place::open(true).await?;
    let stage = Stage::at(format!("kafkas://{}", place.plain()));
    let ca = ("ca_file", &*place.ca_file);
    let without = process(&stage, "plain", &[ca]);
    let words = format!(
        "{} wants a client certificate; name its files in `brokers.main.tls.certificate_file` and \
         `brokers.main.tls.key_file`",
        place.plain()
    );
    refused(&without, BrokerErrorKind::Configuration, &words).await;
    let (certificate_file, key_file) = certificate(&place.ours, "billing", place.folder.path())?;
    let files = [
        ca,
        ("certificate_file", &*certificate_file),
        ("key_file", &*key_file),
    ];
    works(&process(&stage, "plain", &files), "t").await?;
    let stranger = authority("theirs")?;
    let (certificate_file, key_file) = certificate(&stranger, "stranger", place.folder.path())?;
    let files = [
        ca,
        ("certificate_file", &*certificate_file),
        ("key_file", &*key_file),
    ];
    let words = format!(
        "{} refused the client certificate of `brokers.main.tls.certificate_file`",
        place.plain()
    );
    let broker = process(&stage, "plain", &files);
    refused(&broker, BrokerErrorKind::Configuration, &words).await;
    Ok(())
}

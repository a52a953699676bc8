//! TLS against servers of our own: who is trusted, who is let in, and what is said otherwise.

use std::sync::Arc;
use std::time::Duration;

use interline::config::Config;
use interline::messaging::rabbitmq::RabbitMq;
use interline::messaging::{BrokerErrorKind, Connected, ConnectionState, MessageBroker};
use interline::observability::metrics::InMemoryMetrics;
use interline::testing::{FaultProxy, RabbitMqNode, ServerFixture};
use interline_tests::harness::Case;
use interline_tests::management::Management;
use rustls::crypto::CryptoProvider;
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use crate::certificates::{Authority, Files};
use crate::support::{
    Error, Inbox, LIMIT, Outcome, broker, eventually, message, subscription, until_repaired,
};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("messages_travel_over_tls", travels),
        Case::new("a_server_that_is_not_trusted_is_refused", untrusted),
        Case::new("a_certificate_of_another_name_is_refused", other_name),
        Case::new(
            "an_expired_certificate_is_refused_until_it_is_replaced",
            expired,
        ),
        Case::new(
            "authorities_are_read_again_for_each_connection",
            rotated_authority,
        ),
        Case::new("a_client_certificate_is_an_identity", external),
        Case::new(
            "client_certificates_are_read_again_for_each_connection",
            rotated_client,
        ),
        Case::new(
            "a_missing_client_certificate_is_asked_for",
            no_client_certificate,
        ),
        Case::new("tls_and_its_absence_are_told_apart", mixed_up),
        Case::new(
            "certificate_files_that_cannot_be_used_are_named",
            unusable_files,
        ),
    ]
}

/// A server that shows a certificate for `localhost` and takes client certificates as identities.
struct Stage {
    server: ServerFixture,
    files: Files,
    ca: Authority,
}

impl Stage {
    /// The one that cases share which leave it as it is.
    async fn shared() -> Result<&'static Self, Error> {
        static SHARED: OnceCell<Stage> = OnceCell::const_new();
        SHARED.get_or_try_init(|| Self::start(false)).await
    }

    async fn start(require_client_certificate: bool) -> Result<Self, Error> {
        let (files, ca) = (Files::new()?, Authority::new("Test Authority")?);
        files.write("ca.pem", &ca.pem())?;
        files.write_pair("server", &ca.server("localhost")?)?;
        let server = node(&files, require_client_certificate).start().await?;
        Ok(Self { server, files, ca })
    }

    fn url(&self) -> String {
        url(&self.server)
    }

    fn management(&self) -> Result<Management, Error> {
        Ok(Management::of(&self.server)?)
    }

    /// A client that trusts the authority of this server.
    fn client(&self, url: &str, change: impl FnOnce(Config) -> Config) -> Arc<RabbitMq> {
        let ca = self.files.text("ca.pem");
        client(url, |config| {
            change(config.with("brokers.main.tls.ca_file", ca))
        })
    }

    /// A user who is known by the common name of a certificate alone, and the files to show it.
    async fn user(&self, name: &str) -> Outcome {
        let management = self.management()?;
        management.create_user(name, "hunter2").await?;
        management.set_permissions(name, ".*", ".*", ".*").await?;
        self.files.write_pair(name, &self.ca.client(name)?)
    }

    fn show(&self, files: &str) -> impl FnOnce(Config) -> Config + use<> {
        let certificate = self.files.text(&format!("{files}.pem"));
        let key = self.files.text(&format!("{files}.key"));
        |config| {
            config
                .with("brokers.main.tls.certificate_file", certificate)
                .with("brokers.main.tls.key_file", key)
        }
    }
}

fn node(files: &Files, require_client_certificate: bool) -> RabbitMqNode {
    ServerFixture::rabbitmq()
        .tls(files.of_server(require_client_certificate))
        .plugin("rabbitmq_auth_mechanism_ssl")
        .config_line("auth_mechanisms.1 = PLAIN")
        .config_line("auth_mechanisms.2 = EXTERNAL")
        .config_line("ssl_cert_login_from = common_name")
}

/// The TLS address, with a password that no error may show.
fn url(server: &ServerFixture) -> String {
    let url = server.tls_url().expect("a server of our own, with TLS");
    url.to_owned()
}

fn with_password(url: &str, password: &str) -> String {
    url.replace("guest:guest@", &format!("guest:{password}@"))
}

/// `host:port` of an address.
fn place(url: &str) -> &str {
    let rest = url.split('@').nth(1).unwrap_or_default();
    rest.split('/').next().unwrap_or_default()
}

fn client(url: &str, change: impl FnOnce(Config) -> Config) -> Arc<RabbitMq> {
    broker(url, "one", &InMemoryMetrics::default(), change)
}

async fn end(broker: &RabbitMq) {
    broker.disconnect(Instant::now() + LIMIT).await;
}

/// Fails to connect for good, in these words, with no password anywhere.
async fn refused(broker: &RabbitMq, kind: BrokerErrorKind, text: &str) {
    let error = broker.connect().await.expect_err(text);
    assert_eq!(error.to_string(), text);
    assert_eq!(error.kind(), kind);
    let health = broker.health_check();
    assert_eq!(health.state, ConnectionState::Failed);
    assert_eq!(health.last_error.as_deref(), Some(text));
    let shown = format!("{error:?} {broker:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    end(broker).await;
}

/// Says this after some attempt. The alert in which a server says what it misses may be lost with the
/// connection that it closes then, and some attempts see only that.
async fn told(broker: &RabbitMq, text: &str) -> Outcome {
    assert_eq!(broker.connect().await?, Connected::Retrying);
    let told = || broker.health_check().last_error.as_deref() == Some(text);
    eventually(told, || format!("{:?}", broker.health_check())).await;
    end(broker).await;
    Ok(())
}

async fn travels() -> Outcome {
    let stage = Stage::shared().await?;
    let url = stage.url();
    let proxy = FaultProxy::start(place(&url)).await?;
    let port = proxy.address().port();
    let through = url.replace(place(&url), &format!("localhost:{port}"));
    let ca = stage.files.text("ca.pem");
    let one = broker(&through, "travels", &InMemoryMetrics::default(), |config| {
        config.with("brokers.main.tls.ca_file", ca)
    });
    assert_eq!(one.connect().await?, Connected::Yes);
    let mut inbox = Inbox::open(&one, subscription("tls.travels")).await?;
    let body = "x".repeat(200_000);
    for id in ["1", "2", "3"] {
        one.publish(message("tls.travels", id, body.clone()))
            .await?;
        assert_eq!(inbox.take().await.body.len(), body.len());
    }
    // The server says the same.
    until_connections(stage, 2, |one| {
        one["ssl"] == true
            && one["client_properties"]["connection_name"]
                .as_str()
                .is_some_and(|name| name.starts_with("billing/travels/"))
    })
    .await?;
    // A connection that is lost is made again the same way.
    proxy.reset_all().await;
    let deadline = Instant::now() + LIMIT;
    // The outcome of one that is under way when the loss shows is unknown.
    while let Err(error) = one.publish(message("tls.travels", "4", "{}")).await {
        assert!(Instant::now() < deadline, "{error}");
    }
    inbox.next().await;
    end(&one).await;
    // Nobody asked for a provider for the whole process.
    assert!(CryptoProvider::get_default().is_none());
    Ok(())
}

async fn untrusted() -> Outcome {
    let stage = Stage::shared().await?;
    let url = with_password(&stage.url(), "hunter2");
    let text = format!(
        "broker `main`: {} shows a certificate of an authority that is not trusted here; name the \
         file of its authority in `brokers.main.tls.ca_file`",
        place(&url)
    );
    // Another authority, and those of the system.
    stage
        .files
        .write("other-ca.pem", &Authority::new("Other")?.pem())?;
    let other = stage.files.text("other-ca.pem");
    let wrong = client(&url, |config| {
        config.with("brokers.main.tls.ca_file", other)
    });
    refused(&wrong, BrokerErrorKind::Configuration, &text).await;
    let system = client(&url, |config| config);
    refused(&system, BrokerErrorKind::Configuration, &text).await;
    Ok(())
}

async fn other_name() -> Outcome {
    let stage = Stage::shared().await?;
    let url = with_password(&stage.url(), "hunter2").replace("@localhost:", "@127.0.0.1:");
    let text = format!(
        "broker `main`: {} shows a certificate for `localhost`, not for `127.0.0.1`; put a name that \
         it has in the url, or give the server a certificate with this one",
        place(&url)
    );
    let one = stage.client(&url, |config| config);
    refused(&one, BrokerErrorKind::Configuration, &text).await;
    Ok(())
}

async fn expired() -> Outcome {
    let (files, ca) = (Files::new()?, Authority::new("Test Authority")?);
    files.write("ca.pem", &ca.pem())?;
    files.write_pair("server", &ca.expired_server("localhost")?)?;
    let server = node(&files, false).start().await?;
    let stage = Stage { server, files, ca };
    let url = with_password(&stage.url(), "hunter2");
    let text = format!(
        "broker `main`: {} shows a certificate that expired at 2021-01-01T00:00:00.000Z; the server \
         needs a new one",
        place(&url)
    );
    let one = stage.client(&url, |config| config);
    refused(&one, BrokerErrorKind::Configuration, &text).await;
    // Whoever waits for it is there when the server has a new one.
    let url = stage.url();
    let two = stage.client(&url, |config| {
        config.with("brokers.main.on_terminal", "retry")
    });
    assert_eq!(two.connect().await?, Connected::Retrying);
    assert_eq!(two.health_check().last_error, Some(text));
    stage
        .files
        .write_pair("server", &stage.ca.server("localhost")?)?;
    stage.server.restart().await?;
    until_repaired(&two).await;
    end(&two).await;
    Ok(())
}

async fn rotated_authority() -> Outcome {
    let stage = Stage::start(false).await?;
    let one = stage.client(&stage.url(), |config| config);
    assert_eq!(one.connect().await?, Connected::Yes);
    // The server changes to another authority, which this client does not know yet.
    let other = Authority::new("Next Authority")?;
    stage
        .files
        .write_pair("server", &other.server("localhost")?)?;
    stage.server.restart().await?;
    let refused = || {
        let health = one.health_check();
        let told = health.last_error.as_deref().unwrap_or_default();
        health.state == ConnectionState::Failed && told.contains("is not trusted here")
    };
    eventually(refused, || format!("{:?}", one.health_check())).await;
    stage.files.write("ca.pem", &other.pem())?;
    until_repaired(&one).await;
    let mut inbox = Inbox::open(&one, subscription("tls.rotated")).await?;
    one.publish(message("tls.rotated", "1", "{}")).await?;
    inbox.take().await;
    end(&one).await;
    Ok(())
}

async fn external() -> Outcome {
    let stage = Stage::shared().await?;
    stage.user("orders-service").await?;
    let external = |config: Config| config.with("brokers.main.tls.external", true);
    // The name and password in the url count for nothing.
    let url = with_password(&stage.url(), "hunter2");
    let show = stage.show("orders-service");
    let one = stage.client(&url, |config| external(show(config)));
    assert_eq!(one.connect().await?, Connected::Yes);
    let mut inbox = Inbox::open(&one, subscription("tls.external")).await?;
    one.publish(message("tls.external", "1", "{}")).await?;
    inbox.take().await;
    until_users(stage, "orders-service", 2).await?;
    end(&one).await;
    // A certificate that is trusted, of somebody whom the server does not know.
    stage
        .files
        .write_pair("stranger", &stage.ca.client("stranger")?)?;
    let show = stage.show("stranger");
    let two = stage.client(&url, |config| external(show(config)));
    let text = format!(
        "broker `main`: {} refused the credentials of user that the client certificate names",
        place(&url)
    );
    refused(&two, BrokerErrorKind::Authentication, &text).await;
    Ok(())
}

/// Waits until the server counts so many connections of this kind.
async fn until_connections(
    stage: &Stage,
    count: usize,
    wanted: impl Fn(&Value) -> bool,
) -> Outcome {
    let management = stage.management()?;
    let deadline = Instant::now() + LIMIT;
    loop {
        let listed: Vec<Value> = management.get(&["connections"]).await?;
        if listed.iter().filter(|one| wanted(one)).count() == count {
            return Ok(());
        }
        assert!(
            Instant::now() < deadline,
            "{count} are not among {listed:#?}"
        );
        sleep(Duration::from_millis(100)).await;
    }
}

async fn until_users(stage: &Stage, user: &str, count: usize) -> Outcome {
    until_connections(stage, count, |one| one["user"] == user).await
}

async fn rotated_client() -> Outcome {
    let stage = Stage::shared().await?;
    stage.user("before").await?;
    stage.user("after").await?;
    let move_in = |name: &str| -> Outcome {
        for kind in ["pem", "key"] {
            let from = stage.files.path(&format!("{name}.{kind}"));
            std::fs::copy(from, stage.files.path(&format!("current.{kind}")))?;
        }
        Ok(())
    };
    move_in("before")?;
    let url = stage.url();
    let proxy = FaultProxy::start(place(&url)).await?;
    let through = format!("localhost:{}", proxy.address().port());
    let show = stage.show("current");
    let one = stage.client(&url.replace(place(&url), &through), |config| {
        show(config).with("brokers.main.tls.external", true)
    });
    assert_eq!(one.connect().await?, Connected::Yes);
    until_users(stage, "before", 2).await?;
    move_in("after")?;
    proxy.reset_all().await;
    until_users(stage, "after", 2).await?;
    until_users(stage, "before", 0).await?;
    end(&one).await;
    Ok(())
}

async fn no_client_certificate() -> Outcome {
    let stage = Stage::start(true).await?;
    let url = with_password(&stage.url(), "hunter2");
    let text = format!(
        "broker `main`: {} wants a client certificate; name its files in \
         `brokers.main.tls.certificate_file` and `brokers.main.tls.key_file`",
        place(&url)
    );
    let waiting = |config: Config| config.with("brokers.main.on_terminal", "retry");
    let none = stage.client(&url, waiting);
    told(&none, &text).await?;
    // One that the server does not trust is not taken for none.
    let other = Authority::new("Other")?;
    stage.files.write_pair("foreign", &other.client("guest")?)?;
    let text = format!(
        "broker `main`: {} refused the client certificate of `brokers.main.tls.certificate_file` \
         (the server does not trust its authority)",
        place(&url)
    );
    let show = stage.show("foreign");
    let foreign = stage.client(&url, |config| waiting(show(config)));
    told(&foreign, &text).await?;
    stage
        .files
        .write_pair("known", &stage.ca.client("anybody")?)?;
    let known = stage.client(&stage.url(), stage.show("known"));
    assert_eq!(known.connect().await?, Connected::Yes);
    end(&known).await;
    Ok(())
}

async fn mixed_up() -> Outcome {
    let stage = Stage::shared().await?;
    let (clear, secret) = (stage.server.url(), stage.url());
    let url = with_password(&clear.replacen("amqp:", "amqps:", 1), "hunter2");
    let text = format!(
        "broker `main`: {} does not speak TLS; the url needs the server's TLS port (5671), or \
         `amqp://` in place of `amqps://`",
        place(&url)
    );
    let one = stage.client(&url, |config| config);
    refused(&one, BrokerErrorKind::Configuration, &text).await;
    let url = with_password(&secret.replacen("amqps:", "amqp:", 1), "hunter2");
    let text = format!(
        "broker `main`: {} does not speak AMQP 0-9-1; the url needs the AMQP port (5672, or 5671 \
         with TLS)",
        place(&url)
    );
    let two = client(&url, |config| {
        config.with("brokers.main.on_terminal", "retry")
    });
    assert_eq!(two.connect().await?, Connected::Retrying);
    let told = || two.health_check().last_error.as_deref() == Some(&*text);
    eventually(told, || format!("{:?}", two.health_check())).await;
    end(&two).await;
    Ok(())
}

async fn unusable_files() -> Outcome {
    let stage = Stage::shared().await?;
    let url = with_password(&stage.url(), "hunter2");
    let files = &stage.files;
    files.write("empty.pem", "")?;
    files.write_pair("good", &stage.ca.client("good")?)?;
    files.write_pair("mixed", &stage.ca.client("good")?)?;
    files.write("mixed.key", &stage.ca.client("good")?.key)?;
    let keyless = stage.ca.client("good")?.certificate;
    files.write("keyless.pem", &keyless)?;
    files.write("keyless.key", &keyless)?;
    let root = files.root().display();
    let ca = |name: &str| {
        let path = files.text(name);
        client(&url, |config| config.with("brokers.main.tls.ca_file", path))
    };
    let cases = [
        (
            ca("absent.pem"),
            format!("`{root}/absent.pem` cannot be read: No such file or directory (os error 2)"),
        ),
        (
            ca("empty.pem"),
            format!(
                "`{root}/empty.pem` holds no certificate; it must be PEM text \
                 (`-----BEGIN CERTIFICATE-----`)"
            ),
        ),
        (
            stage.client(&url, stage.show("keyless")),
            format!(
                "`{root}/keyless.key` holds no private key that is not encrypted; it must be PEM \
                 text (`-----BEGIN PRIVATE KEY-----`)"
            ),
        ),
        (
            stage.client(&url, stage.show("mixed")),
            format!(
                "the key in `{root}/mixed.key` does not go with the certificate in \
                 `{root}/mixed.pem`: keys may not be consistent: KeyMismatch"
            ),
        ),
    ];
    for (broker, text) in cases {
        let text = format!("broker `main`: {text}");
        refused(&broker, BrokerErrorKind::Configuration, &text).await;
    }
    Ok(())
}

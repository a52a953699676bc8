//! Connections with TLS, and HTTP/2.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Version;
use interline::http::{CallErrorKind, Sent};
use interline::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use crate::server::{Reply, Server, Way};
use crate::shop::{ITEM, Shop, ShopClient, client, item};

/// Who signs certificates, and a folder of them.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Writes `NAME.pem` and `NAME.key`.
    fn sign(&self, name: &str, subject: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([subject.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.file(&format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// A server of 127.0.0.1 that speaks these protocols.
    async fn server(&self, protocols: &[&str], wants_certificate: bool) -> Server {
        let way = self.way("127.0.0.1", protocols, wants_certificate);
        Server::start_with(|_| Reply::json(ITEM), way).await
    }

    /// How a server speaks that is called this.
    pub(crate) fn way(&self, name: &str, protocols: &[&str], wants_certificate: bool) -> Way {
        self.sign("server", name);
        let certificates = CertificateDer::pem_file_iter(self.file("server.pem")).unwrap();
        let certificates = certificates.map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(self.file("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if wants_certificate {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(certificates, key).unwrap();
        let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
        config.alpn_protocols = protocols.collect();
        Way::Tls(TlsAcceptor::from(Arc::new(config)))
    }

    pub(crate) fn trusted(&self) -> String {
        format!("tls.ca_file = \"{}\"", self.file("ca.pem"))
    }
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_and_the_newest_http_is_spoken() {
    let authority = Authority::new();
    let server = authority.server(&["h2", "http/1.1"], false).await;
    let lines = format!("https_only = true\n{}", authority.trusted());
    let shop = client(&[server.url()], &lines).await;
    assert_eq!(shop.item("7").await.unwrap(), item());
    let lines = format!("protocol = \"http1\"\n{}", authority.trusted());
    let shop = client(&[server.url()], &lines).await;
    assert_eq!(shop.item("7").await.unwrap(), item());
    let old = authority.server(&["http/1.1"], false).await;
    let shop = client(&[old.url()], &authority.trusted()).await;
    assert_eq!(shop.item("7").await.unwrap(), item());
    let versions: Vec<_> = [server.seen(), old.seen()]
        .concat()
        .iter()
        .map(|seen| seen.version)
        .collect();
    assert_eq!(
        versions,
        [Version::HTTP_2, Version::HTTP_11, Version::HTTP_11]
    );
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_not_called() {
    let authority = Authority::new();
    let server = authority.server(&["h2"], false).await;
    let other = Authority::new();
    let lines = format!("retry.attempts = 1\n{}", other.trusted());
    let shop = client(&[server.url()], &lines).await;
    let error = shop.add(&item()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_sent()),
        (CallErrorKind::Connect, Sent::No)
    );
    assert!(error.to_string().contains("certificate"), "{error}");
    assert_eq!(server.count(), 0);
}

#[tokio::test]
async fn a_client_shows_its_certificate() {
    let authority = Authority::new();
    authority.sign("till", "till");
    let server = authority.server(&["http/1.1"], true).await;
    let without = client(&[server.url()], &authority.trusted()).await;
    let error = without.item("7").await.unwrap_err();
    assert!(error.to_string().contains("ertificate"), "{error}");
    assert_eq!(server.count(), 0);
    let lines = format!(
        "{}\ntls.certificate_file = \"{}\"\ntls.key_file = \"{}\"",
        authority.trusted(),
        authority.file("till.pem"),
        authority.file("till.key")
    );
    let shop = client(&[server.url()], &lines).await;
    assert_eq!(shop.item("7").await.unwrap(), item());
}

#[tokio::test]
async fn http2_is_spoken_in_the_clear_where_it_is_asked_for() {
    let server = Server::start_with(|_| Reply::json(ITEM), Way::Http2).await;
    let shop = client(&[server.url()], "protocol = \"http2\"").await;
    assert_eq!(shop.item("7").await.unwrap(), item());
    assert_eq!(server.seen()[0].version, Version::HTTP_2);
}

#[tokio::test]
async fn mistakes_about_certificates_are_told_at_the_start() {
    let refused = async |url: &str, lines: &str| {
        let toml = format!("[services.shop]\nurls = [\"{url}\"]\n{lines}\n");
        let config = Config::from_toml("interline.toml", &toml).unwrap();
        let app = App::new(config).named_only().publish_only();
        app.launch().await.unwrap_err().to_string()
    };
    for (url, lines, wanted) in [
        (
            "http://shop",
            "https_only = true",
            "`http://shop` is not encrypted",
        ),
        (
            "http://shop",
            "tls.ca_file = \"x\"",
            "has no effect: no address of the service has TLS",
        ),
        (
            "https://shop",
            "tls.key_file = \"x\"",
            "is missing beside `key_file`",
        ),
        (
            "https://shop",
            "tls.ca_file = \"/no/ca.pem\"",
            "`/no/ca.pem` cannot be read",
        ),
        ("https://shop", "protocol = \"http3\"", "http3"),
        (
            "https://shop",
            "tls.reload = \"1s\"",
            "has no effect: no file is named beside it",
        ),
        (
            "https://shop",
            "connection_age_max = \"1ms\"",
            "is not between 10 ms and a day",
        ),
    ] {
        let error = refused(url, lines).await;
        assert!(error.contains(wanted), "{lines}: {error}");
    }
}

/// The longest that anything may take that is expected to happen.
const LIMIT: Duration = Duration::from_secs(30);

/// Calls until it succeeds.
async fn until_answered(shop: &ShopClient) {
    let begun = Instant::now();
    while let Err(error) = shop.item("7").await {
        assert!(begun.elapsed() < LIMIT, "{error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn files_that_change_count_for_the_next_connection() {
    const LINES: &str = "tls.reload = \"20ms\"\nbreaker.enabled = false\nretry.attempts = 1";
    let authority = Authority::new();
    let server = authority.server(&["h2", "http/1.1"], true).await;
    // Nobody whom the server knows has signed it, and the client does not know who signed the server.
    let foreign = Authority::new();
    foreign.sign("till", "till");
    let lines = format!(
        "{LINES}\n{}\ntls.certificate_file = \"{}\"\ntls.key_file = \"{}\"",
        foreign.trusted(),
        foreign.file("till.pem"),
        foreign.file("till.key")
    );
    let shop = client(&[server.url()], &lines).await;
    let error = shop.item("7").await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::Connect);
    authority.sign("till", "till");
    let exchange = |name: &str| {
        let file = foreign.file(name);
        fs::copy(authority.file(name), format!("{file}.new")).unwrap();
        fs::rename(format!("{file}.new"), file).unwrap();
    };
    exchange("ca.pem");
    // For a while the key does not go with the certificate, and then it does.
    exchange("till.pem");
    assert!(shop.item("7").await.is_err());
    exchange("till.key");
    until_answered(&shop).await;
    assert_eq!(server.count(), 1);
    // What is broken changes nothing, and does not end the looking.
    fs::write(foreign.file("ca.pem"), "no certificate").unwrap();
    fs::remove_file(foreign.file("till.key")).unwrap();
    for _ in 0..50 {
        assert_eq!(shop.item("7").await.unwrap(), item());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let next = Authority::new();
    fs::copy(next.file("ca.pem"), foreign.file("ca.pem")).unwrap();
    next.sign("till", "till");
    fs::copy(next.file("till.pem"), foreign.file("till.pem")).unwrap();
    fs::copy(next.file("till.key"), foreign.file("till.key")).unwrap();
    // The server of before is not trusted any more.
    let begun = Instant::now();
    while shop.item("7").await.is_ok() {
        assert!(begun.elapsed() < LIMIT);
    }
}

#[tokio::test]
async fn instances_are_called_by_the_name_in_their_certificate() {
    let authority = Authority::new();
    for protocols in [&["h2"], &["http/1.1"]] {
        let way = authority.way("shop.test", protocols, false);
        // Two instances of one name and one port, which are two all the same.
        let [one, two] = Server::start_two(|_| Reply::json(ITEM), way).await;
        let urls = [one.url(), two.url()];
        let named = format!("host = \"Shop.Test\"\n{}", authority.trusted());
        let lines = format!("balance = \"round_robin\"\n{named}");
        let shop = client(&urls, &lines).await;
        for _ in 0..10 {
            assert_eq!(shop.item("7").await.unwrap(), item());
        }
        assert_eq!((one.count(), two.count()), (5, 5));
        let name = format!("shop.test:{}", one.port());
        for seen in [one.seen(), two.seen()].concat() {
            assert_eq!(seen.names(), [&*name]);
        }
        // By its address, or by another name, it is not who it says.
        let other = "retry.attempts = 1\nhost = \"orders.test\"";
        for lines in ["retry.attempts = 1", other] {
            let shop = client(&urls, &format!("{lines}\n{}", authority.trusted())).await;
            let error = shop.item("7").await.unwrap_err();
            assert_eq!(error.kind(), CallErrorKind::Connect, "{lines}");
            assert!(error.to_string().contains("certificate"), "{error}");
        }
    }
}

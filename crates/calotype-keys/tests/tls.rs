//! Whom the adapters talk to: only to who proves to be it (CVE-2013-4111 was a client that did not ask).
#![expect(
    clippy::expect_used,
    clippy::disallowed_methods,
    dead_code,
    reason = "clippy does not see that a test's own functions are tests; the stub can do more than is done here"
)]

mod stub;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use calotype_core::keys::{Authority, KeyFault, KeyPurpose, KeyResult, KeyUser};
use calotype_core::ports::{Clock, Entropy, KeyService};
use calotype_core::time::Timestamp;
use calotype_core::{ErrorKind, Result};
use calotype_keys::{
    AccessKey, Authorize, ContextField, Kms, KmsCredential, KmsOptions, SystemEntropy,
};
use calotype_remote::Connection;
use serde_json::json;
use stub::Stub;
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

const K: &str = "bbbbbbbb-0000-0000-0000-000000000002";

struct Epoch;

impl Clock for Epoch {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(0)
    }
}

/// An authority that only this test knows.
struct Authorities(TempDir);

impl Authorities {
    fn new() -> Self {
        let ca = Self(tempfile::tempdir().expect("a directory"));
        ca.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=ca");
        ca
    }

    /// A server's side of TLS, for a name, good for so many days.
    fn acceptor(&self, name: &str, days: &str) -> TlsAcceptor {
        std::fs::write(self.file("names"), format!("subjectAltName={name}\n")).expect("the file");
        self.openssl("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out server.csr -subj /CN=server");
        self.openssl(&format!(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} -extfile names -out server.pem"
        ));
        let certificate = CertificateDer::from_pem_file(self.file("server.pem"));
        let key = PrivateKeyDer::from_pem_file(self.file("server.key"));
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.expect("one")], key.expect("a key"));
        TlsAcceptor::from(Arc::new(config.expect("a configuration")))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(self.0.path())
            .output()
            .expect("openssl runs: `cargo xtask test` installs it");
        assert!(output.status.success(), "openssl {arguments}");
    }
}

fn kms(url: &str, ca_file: Option<PathBuf>) -> Result<Kms> {
    let options = KmsOptions {
        endpoint: Some(url.to_owned()),
        credential: KmsCredential::AccessKey(AccessKey {
            id: "AK".to_owned(),
            secret: Zeroizing::new("sk".to_owned()),
            project: "sp".to_owned(),
        }),
        authorize: Authorize::Service,
        context: ContextField::None,
        cache_life: Duration::ZERO,
        connection: Connection {
            ca_file,
            ..Connection::default()
        },
    };
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
    Kms::new(options, &entropy, Arc::new(Epoch))
}

async fn check(url: &str, trusted: Option<&Authorities>) -> KeyResult<()> {
    let ca_file = trusted.map(|it| it.file("ca.pem"));
    let kms = kms(url, ca_file).expect("a KMS");
    let user = KeyUser {
        project: "cp".parse().expect("an id"),
        user: "u1".parse().expect("an id"),
        authority: Authority::Job,
    };
    let key = K.parse().expect("an id");
    kms.check(&user, &key, KeyPurpose::Open).await
}

#[tokio::test]
async fn only_a_server_with_a_good_certificate_for_its_name_is_asked() {
    let (ours, others) = (Authorities::new(), Authorities::new());
    for (name, days, trusted, good) in [
        ("IP:127.0.0.1", "10", Some(&ours), true),
        ("IP:127.0.0.1", "10", None, false),
        ("IP:127.0.0.1", "10", Some(&others), false),
        ("DNS:kms.example.com", "10", Some(&ours), false),
        ("IP:127.0.0.1", "-1", Some(&ours), false),
    ] {
        let stub = Stub::start_tls(ours.acceptor(name, days)).await;
        stub.key(K, json!({"key_state": "2"}));
        let outcome = check(&stub.url, trusted).await;
        let shown = format!("{name} {days} {}: {outcome:?}", trusted.is_some());
        if good {
            assert!(outcome.is_ok(), "{shown}");
        } else {
            let unavailable = matches!(
                outcome, Err(KeyFault::Failed(error)) if matches!(error.kind(), ErrorKind::Unavailable { .. })
            );
            assert!(unavailable, "{shown}");
            assert!(stub.seen("").is_empty(), "nothing was asked");
        }
    }
}

#[test]
fn a_file_without_certificates_is_refused_at_the_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, "no certificate").expect("the file");
    for ca_file in [file, directory.path().join("none")] {
        assert!(kms("https://kms.example.com", Some(ca_file)).is_err());
    }
}

//! Receive locations: where messages come in.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use sso_core::tls::{ClientCertificate, ListSource, RevocationPolicy, TlsVersion};

use super::{
    PortError, Thumbprint,
    fields::{
        AUTHORITY_FILE, CERTIFICATE_THUMBPRINT, Fields, MINIMUM_TLS_VERSION, REVOCATION_LISTS,
        REVOCATION_POLICY, REVOCATION_REFRESH, Trust, parse_client_certificate, parse_socket,
        parse_thumbprint,
    },
};
use crate::Configuration;

const LISTEN: &str = "Listen";
const PATH: &str = "Path";
const CLIENT_CERTIFICATE: &str = "ClientCertificate";
const HANDSHAKE_TIMEOUT: &str = "HandshakeTimeoutSeconds";
const IDLE_TIMEOUT: &str = "IdleTimeoutSeconds";

/// Where others bring messages over HTTPS: BizTalk's receive location.
///
/// Read from one configuration of a config store application ([`ReceiveLocation::read`]):
///
/// | key | unit, form | without it |
/// |---|---|---|
/// | `Listen` | `ADDRESS:PORT` | needed |
/// | `Path` | the path that messages are posted to, `/…` | `/` |
/// | `CertificateThumbprint` | of its own certificate in the host's store, SHA-256 or SHA-1 | needed |
/// | `AuthorityFile` | PEM file below the store's folder: a relative path without `..` | needed |
/// | `RevocationLists` | files below the store's folder and URLs, separated by `,` `;` or new lines | nothing is checked for revocation |
/// | `RevocationPolicy` | `hard-fail`, `soft-fail`, `off` | `hard-fail` where there are lists |
/// | `RevocationRefreshSeconds` | seconds, 10 to 604800 | 3600 |
/// | `MinimumTlsVersion` | `1.3`, `1.2` | `1.3` |
/// | `ClientCertificate` | `required`, `optional` (where callers prove themselves otherwise too) | `required` |
/// | `HandshakeTimeoutSeconds` | seconds, 0.1 to 60 | 5 |
/// | `IdleTimeoutSeconds` | seconds, 1 to 3600: a connection on which nothing moves is closed | 60 |
///
/// An empty value is as good as none. Other fields of the configuration are left to the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiveLocation {
    /// What the host calls it.
    pub name: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// The path that messages are posted to.
    pub path: String,
    /// Its own certificate.
    pub certificate: Thumbprint,
    /// The authorities that client certificates must come from.
    pub ca: PathBuf,
    /// Revocation lists, one of every authority.
    pub crl: Vec<ListSource>,
    /// What becomes of a client whose revocation cannot be determined.
    pub revocation: Option<RevocationPolicy>,
    /// How often lists with a URL are fetched again; `None`: the default.
    pub list_refresh: Option<Duration>,
    /// The oldest protocol version spoken.
    pub minimum_version: TlsVersion,
    /// Whether those who connect have to show a certificate.
    pub client_certificate: ClientCertificate,
    /// For one handshake.
    pub handshake_timeout: Duration,
    /// A connection on which nothing moved for this long is closed.
    pub idle_timeout: Duration,
}

impl ReceiveLocation {
    /// The labels of the fields: a config store application for receive locations has these.
    pub const FIELDS: &'static [&'static str] = &[
        LISTEN,
        PATH,
        CERTIFICATE_THUMBPRINT,
        AUTHORITY_FILE,
        REVOCATION_LISTS,
        REVOCATION_POLICY,
        REVOCATION_REFRESH,
        MINIMUM_TLS_VERSION,
        CLIENT_CERTIFICATE,
        HANDSHAKE_TIMEOUT,
        IDLE_TIMEOUT,
    ];

    /// Reads the location from its configuration; `name` is what the host calls it.
    ///
    /// # Errors
    /// [`PortError`], which names every bad key.
    pub fn read(name: &str, values: &Configuration) -> Result<Self, PortError> {
        let mut fields = Fields::new(values);
        let listen = fields.required(LISTEN, parse_socket);
        let path = fields.optional(PATH, parse_url_path).unwrap_or_else(|| "/".to_owned());
        let certificate = fields.required(CERTIFICATE_THUMBPRINT, parse_thumbprint);
        let trust = Trust::read(&mut fields);
        let client_certificate =
            fields.optional(CLIENT_CERTIFICATE, parse_client_certificate).unwrap_or_default();
        let handshake_timeout =
            fields.seconds(HANDSHAKE_TIMEOUT, 0.1..=60.0, Duration::from_secs(5));
        let idle_timeout = fields.seconds(IDLE_TIMEOUT, 1.0..=3600.0, Duration::from_secs(60));
        let needed = listen.zip(certificate).zip(trust.ca);
        let location = needed.map(|((listen, certificate), ca)| Self {
            name: name.to_owned(),
            listen,
            path,
            certificate,
            ca,
            crl: trust.crl,
            revocation: trust.revocation,
            list_refresh: trust.list_refresh,
            minimum_version: trust.minimum_version,
            client_certificate,
            handshake_timeout,
            idle_timeout,
        });
        fields.finish("receive location", name, location)
    }
}

fn parse_url_path(text: &str) -> Result<String, &'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%".contains(&byte);
    match text.starts_with('/') && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("has to be a path such as /notifications: letters, digits and / - . _ ~ %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::integration::testing::configuration;

    #[test]
    fn every_key_is_read() {
        let thumbprint = "ab".repeat(32);
        let texts = [
            ("Listen", "127.0.0.1:8443"),
            ("Path", "/notifications"),
            ("CertificateThumbprint", thumbprint.as_str()),
            ("AuthorityFile", "ca.crt"),
            ("RevocationLists", "https://pki.example/ca.crl"),
            ("RevocationPolicy", "hard-fail"),
            ("RevocationRefreshSeconds", "30"),
            ("MinimumTlsVersion", "1.2"),
            ("ClientCertificate", "optional"),
            ("HandshakeTimeoutSeconds", "2"),
            ("IdleTimeoutSeconds", "10"),
        ];
        assert_eq!(texts.map(|(key, _)| key), ReceiveLocation::FIELDS);
        let location = ReceiveLocation::read("Notifications", &configuration(&texts)).unwrap();
        assert_eq!(location.listen, "127.0.0.1:8443".parse().unwrap());
        assert_eq!(location.path, "/notifications");
        assert_eq!(location.certificate.as_str(), thumbprint);
        assert_eq!(location.client_certificate, ClientCertificate::Optional);
        assert_eq!(location.handshake_timeout, Duration::from_secs(2));
        assert_eq!(location.idle_timeout, Duration::from_secs(10));
        let least = ReceiveLocation::read("Notifications", &configuration(&texts[..4])).unwrap();
        assert_eq!(least.client_certificate, ClientCertificate::Required);
        assert_eq!(least.handshake_timeout, Duration::from_secs(5));
    }

    #[test]
    fn all_bad_keys_are_named_at_once() {
        let texts = [
            ("Path", "notifications?x"),
            ("CertificateThumbprint", "canary"),
            ("ClientCertificate", "canary"),
            ("IdleTimeoutSeconds", "0"),
            ("MinimumTlsVersion", "1.1"),
        ];
        let error = ReceiveLocation::read("N", &configuration(&texts)).unwrap_err();
        let named: Vec<_> = error.problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(
            named,
            [
                "Listen",
                "Path",
                "CertificateThumbprint",
                "AuthorityFile",
                "MinimumTlsVersion",
                "ClientCertificate",
                "IdleTimeoutSeconds"
            ]
        );
        let words = error.to_string();
        assert!(words.contains("nothing older can be enabled"), "{words}");
        assert!(!words.contains("canary"), "{words}");
    }
}

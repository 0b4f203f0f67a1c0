//! Send ports: where messages go, and how.

use std::{path::PathBuf, time::Duration};

use sso_core::tls::{ListSource, RevocationPolicy, TlsVersion};

use super::{
    PortError, RetryPlan, Thumbprint,
    fields::{
        AUTHORITY_FILE, CERTIFICATE_THUMBPRINT, Fields, MINIMUM_TLS_VERSION, REVOCATION_LISTS,
        REVOCATION_POLICY, REVOCATION_REFRESH, Trust, parse_thumbprint,
    },
};
use crate::Configuration;

const ADDRESS: &str = "Address";
const AFFILIATE_APPLICATION: &str = "AffiliateApplication";
const CONNECT_TIMEOUT: &str = "ConnectTimeoutSeconds";
const TIMEOUT: &str = "TimeoutSeconds";
const RETRY_FIRST: &str = "RetryFirstSeconds";
const RETRY_FACTOR: &str = "RetryFactor";
const RETRY_MOST: &str = "RetryMostSeconds";
const RETRY_ATTEMPTS: &str = "RetryAttempts";

/// Seconds that a timeout or a pause may be set to.
const TIMEOUTS: std::ops::RangeInclusive<f64> = 0.1..=3600.0;
const PAUSES: std::ops::RangeInclusive<f64> = 0.1..=86_400.0;

/// An outside system that messages are sent to: BizTalk's send port with its adapter's properties, which
/// there too live in the config store.
///
/// Read from one configuration of a config store application ([`SendPort::read`]):
///
/// | key | unit, form | without it |
/// |---|---|---|
/// | `Address` | `https://HOST[:PORT][/PATH]`, no user, no query | needed |
/// | `CertificateThumbprint` | of the client certificate in the host's store, SHA-256 or SHA-1 | none is shown |
/// | `AuthorityFile` | PEM file below the store's folder: a relative path without `..` | needed |
/// | `RevocationLists` | files below the store's folder and URLs, separated by `,` `;` or new lines | nothing is checked for revocation |
/// | `RevocationPolicy` | `hard-fail`, `soft-fail`, `off` | `hard-fail` where there are lists |
/// | `RevocationRefreshSeconds` | seconds, 10 to 604800 | 3600 |
/// | `MinimumTlsVersion` | `1.3`, `1.2` | `1.3` |
/// | `AffiliateApplication` | the application whose credentials are used at the address | tickets are not redeemed |
/// | `ConnectTimeoutSeconds` | seconds, 0.1 to 3600: connection and handshake | 10 |
/// | `TimeoutSeconds` | seconds, 0.1 to 3600: from the call to the whole answer | 30 |
/// | `RetryFirstSeconds` | seconds, 0.1 to 86400 | 1 |
/// | `RetryFactor` | 1 to 100 | 2 |
/// | `RetryMostSeconds` | seconds, 0.1 to 86400 | 300 |
/// | `RetryAttempts` | 1 to 1000000, 0 = until it works | 0 |
///
/// An empty value is as good as none. Other fields of the configuration are left to the host. There are
/// no secrets here: credentials are the mappings of `AffiliateApplication`, keys are in the store.
///
/// Whoever may write the configuration decides where messages and their credentials go, as far as the
/// host's own settings let them: certificates, authorities and lists are those in the store's folder (a
/// link there to another place is its administrator's word), and [`redeem`](super::redeem()) takes the
/// applications that the host allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendPort {
    /// What the host calls it.
    pub name: String,
    /// Without a slash at the end; paths of calls are appended.
    pub address: String,
    /// The client certificate; `None`: none is shown.
    pub certificate: Option<Thumbprint>,
    /// The authorities that the server's certificate must come from.
    pub ca: PathBuf,
    /// Revocation lists, one of every authority.
    pub crl: Vec<ListSource>,
    /// What becomes of a server whose revocation cannot be determined.
    pub revocation: Option<RevocationPolicy>,
    /// How often lists with a URL are fetched again; `None`: the default.
    pub list_refresh: Option<Duration>,
    /// The oldest protocol version spoken.
    pub minimum_version: TlsVersion,
    /// The affiliate application whose credentials tickets are redeemed for.
    pub application: Option<String>,
    /// For the connection and the handshake.
    pub connect_timeout: Duration,
    /// For the whole call.
    pub timeout: Duration,
    /// When what was not delivered is sent again.
    pub retry: RetryPlan,
}

impl SendPort {
    /// The labels of the fields: a config store application for send ports has these.
    pub const FIELDS: &'static [&'static str] = &[
        ADDRESS,
        CERTIFICATE_THUMBPRINT,
        AUTHORITY_FILE,
        REVOCATION_LISTS,
        REVOCATION_POLICY,
        REVOCATION_REFRESH,
        MINIMUM_TLS_VERSION,
        AFFILIATE_APPLICATION,
        CONNECT_TIMEOUT,
        TIMEOUT,
        RETRY_FIRST,
        RETRY_FACTOR,
        RETRY_MOST,
        RETRY_ATTEMPTS,
    ];

    /// Reads the port from its configuration; `name` is what the host calls it.
    ///
    /// # Errors
    /// [`PortError`], which names every bad key.
    pub fn read(name: &str, values: &Configuration) -> Result<Self, PortError> {
        let mut fields = Fields::new(values);
        let address = fields.required(ADDRESS, parse_address);
        let certificate = fields.optional(CERTIFICATE_THUMBPRINT, parse_thumbprint);
        let trust = Trust::read(&mut fields);
        let application = fields.text(AFFILIATE_APPLICATION).map(str::to_owned);
        let connect_timeout = fields.seconds(CONNECT_TIMEOUT, TIMEOUTS, Duration::from_secs(10));
        let timeout = fields.seconds(TIMEOUT, TIMEOUTS, Duration::from_secs(30));
        let retry = read_retry(&mut fields);
        let port = address.zip(trust.ca).map(|(address, ca)| Self {
            name: name.to_owned(),
            address,
            certificate,
            ca,
            crl: trust.crl,
            revocation: trust.revocation,
            list_refresh: trust.list_refresh,
            minimum_version: trust.minimum_version,
            application,
            connect_timeout,
            timeout,
            retry,
        });
        fields.finish("send port", name, port)
    }
}

fn read_retry(fields: &mut Fields<'_>) -> RetryPlan {
    let usual = RetryPlan::default();
    let first = fields.seconds(RETRY_FIRST, PAUSES, usual.first);
    let factor = fields.number(RETRY_FACTOR, 1..=100).unwrap_or(usual.factor);
    let most = fields.seconds(RETRY_MOST, PAUSES, usual.most.max(first));
    if most < first {
        fields.problem(RETRY_MOST, format!("has to be no less than {RETRY_FIRST}"));
    }
    let attempts = fields.number(RETRY_ATTEMPTS, 0..=1_000_000).filter(|attempts| *attempts > 0);
    RetryPlan { first, factor, most, attempts }
}

fn parse_address(text: &str) -> Result<String, &'static str> {
    const FORM: &str = "has to be https://HOST[:PORT][/PATH]";
    let uri = http::Uri::try_from(text).map_err(|_| FORM)?;
    if uri.scheme_str() != Some("https") {
        return Err("has to start with https://");
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(FORM);
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("must not have a user or a password: they are credentials of the affiliate \
                    application");
    }
    // The library drops fragments without a word.
    if uri.query().is_some() || text.contains(['?', '#']) {
        return Err("must not have a query or a fragment");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::integration::testing::configuration;

    const THUMBPRINT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn the_least_is_address_and_authority() {
        let values = configuration(&[
            ("address", " https://pay.example:8443/api/ "),
            ("AUTHORITYFILE", "ca.crt"),
            ("CertificateThumbprint", ""),
            ("Own", "of the host"),
        ]);
        let port = SendPort::read("Bills", &values).unwrap();
        assert_eq!(port.address, "https://pay.example:8443/api");
        assert_eq!((port.certificate, port.revocation, port.application), (None, None, None));
        assert_eq!(port.minimum_version, TlsVersion::V1_3);
        assert_eq!(port.timeout, Duration::from_secs(30));
        assert_eq!(port.retry, RetryPlan::default());
    }

    #[test]
    fn every_key_is_read() {
        let texts = [
            ("Address", "https://pay.example"),
            ("CertificateThumbprint", THUMBPRINT),
            ("AuthorityFile", "pki/ca.crt"),
            ("RevocationLists", "ca.crl, http://pki.example/ca.crl\nother.crl;"),
            ("RevocationPolicy", "soft-fail"),
            ("RevocationRefreshSeconds", "60"),
            ("MinimumTlsVersion", "1.2"),
            ("AffiliateApplication", "Gateway"),
            ("ConnectTimeoutSeconds", "0.5"),
            ("TimeoutSeconds", "5"),
            ("RetryFirstSeconds", "2"),
            ("RetryFactor", "3"),
            ("RetryMostSeconds", "60"),
            ("RetryAttempts", "7"),
        ];
        assert_eq!(texts.map(|(key, _)| key), SendPort::FIELDS);
        let port = SendPort::read("Bills", &configuration(&texts)).unwrap();
        let lists: Vec<_> = port.crl.iter().map(ToString::to_string).collect();
        assert_eq!(lists, ["ca.crl", "http://pki.example/ca.crl", "other.crl"]);
        assert_eq!(port.certificate, Some(THUMBPRINT.parse().unwrap()));
        assert_eq!(port.revocation, Some(RevocationPolicy::SoftFail));
        assert_eq!(port.list_refresh, Some(Duration::from_secs(60)));
        assert_eq!(port.minimum_version, TlsVersion::V1_2);
        assert_eq!(port.application.as_deref(), Some("Gateway"));
        assert_eq!(port.connect_timeout, Duration::from_millis(500));
        let plan = RetryPlan {
            first: Duration::from_secs(2),
            factor: 3,
            most: Duration::from_secs(60),
            attempts: Some(7),
        };
        assert_eq!(port.retry, plan);
    }

    #[test]
    fn all_bad_keys_are_named_and_no_value_is_repeated() {
        let texts = SendPort::FIELDS.iter().map(|key| (*key, "canary-1.1"));
        let texts: Vec<_> = texts
            .filter(|(key, _)| !["AuthorityFile", "AffiliateApplication"].contains(key))
            .collect();
        let error = SendPort::read("Bills", &configuration(&texts)).unwrap_err();
        let words = error.to_string();
        assert!(!words.contains("canary"), "{words}");
        let named: Vec<_> = error.problems.iter().map(|problem| problem.key.as_str()).collect();
        let expected: Vec<_> = SendPort::FIELDS
            .iter()
            // "canary-1.1" is a fine name of a list.
            .filter(|key| !["RevocationLists", "AffiliateApplication"].contains(key))
            .copied()
            .collect();
        assert_eq!(named, expected, "{words}");
        assert!(
            words.contains("the send port 'Bills' (configuration App/Id, revision 3)"),
            "{words}"
        );
        assert!(words.contains("AuthorityFile is missing"), "{words}");
    }

    #[test]
    fn addresses_are_https_and_hold_no_secret() {
        for bad in [
            "http://pay.example",
            "pay.example",
            "https://",
            "https://:443",
            "https://ann:canary@pay.example",
            "https://pay.example/?token=canary",
            "https://pay.example/#x",
            "https://pay example",
        ] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_address("https://[::1]:8443/").unwrap(), "https://[::1]:8443");
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let read = |more: &[(&str, &str)]| {
            let texts = [&[("Address", "https://a"), ("AuthorityFile", "ca.crt")], more].concat();
            let error = SendPort::read("Bills", &configuration(&texts)).unwrap_err();
            assert_eq!(error.problems.len(), 1, "{error}");
            error.problems[0].key.clone()
        };
        assert_eq!(read(&[("RevocationPolicy", "hard-fail")]), "RevocationPolicy");
        let pauses = [("RetryFirstSeconds", "60"), ("RetryMostSeconds", "10")];
        assert_eq!(read(&pauses), "RetryMostSeconds");
        assert_eq!(read(&[("RevocationLists", "a.crl,a.crl")]), "RevocationLists");
        assert_eq!(read(&[("TimeoutSeconds", "NaN")]), "TimeoutSeconds");
        assert_eq!(read(&[("TimeoutSeconds", "inf")]), "TimeoutSeconds");
    }

    #[test]
    fn files_outside_of_the_store_are_not_named() {
        for bad in ["/etc/pki/ca.crt", "../ca.crt", "pki/../../ca.crt", "./ca.crt", "a\0b"] {
            let texts = [("Address", "https://a"), ("AuthorityFile", bad)];
            let error = SendPort::read("Bills", &configuration(&texts)).unwrap_err();
            assert!(error.to_string().contains("AuthorityFile has to be a file below"), "{error}");
            let list = format!("https://a/ca.crl, {bad}");
            let texts =
                [("Address", "https://a"), ("AuthorityFile", "ca.crt"), ("RevocationLists", &list)];
            let error = SendPort::read("Bills", &configuration(&texts)).unwrap_err();
            assert!(
                error.to_string().contains("RevocationLists names no list in place 2"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_masked_field_is_no_part_of_a_port() {
        let mut values = configuration(&[("Address", "https://a"), ("AuthorityFile", "ca.crt")]);
        values.masked = vec!["AffiliateApplication".to_owned()];
        let error = SendPort::read("Bills", &values).unwrap_err();
        assert!(error.to_string().contains("AffiliateApplication is masked"), "{error}");
    }
}

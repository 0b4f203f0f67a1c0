//! What can be asked of an authority.

use std::{net::IpAddr, str::FromStr as _};

use rcgen::SanType;
use time::Duration;

use super::{CertificateError, KeyType};

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// An SSO server: serves clients, and is a client of the master secret server.
    Server,
    /// The master secret server.
    Master,
    /// A person, an integration host or any other client.
    Client,
}

/// A certificate to issue.
#[derive(Clone, Debug)]
pub struct Request {
    /// The subject's common name, and the name of the files: letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// What the certificate is for; decides the extended key usages.
    pub role: Role,
    /// Host names under which a server or master is dialled.
    pub dns: Vec<String>,
    /// Addresses under which a server or master is dialled.
    pub addresses: Vec<IpAddr>,
    /// Further URIs of the subject alternative name.
    pub uris: Vec<String>,
    /// E-mail addresses of the subject alternative name.
    pub emails: Vec<String>,
    /// `DOMAIN\name`: becomes the URI `sso://DOMAIN/name`. Only for clients.
    pub account: Option<String>,
    /// How long it is valid from now.
    pub lifetime: Duration,
    /// Which kind of key is made for it.
    pub key_type: KeyType,
    /// Address of the authority's revocation list, named in the certificate for those who look there.
    pub revocation_list: Option<String>,
}

impl Request {
    /// A request with nothing but name, role and lifetime.
    #[must_use]
    pub fn new(name: impl Into<String>, role: Role, lifetime: Duration) -> Self {
        Self {
            name: name.into(),
            role,
            dns: Vec::new(),
            addresses: Vec::new(),
            uris: Vec::new(),
            emails: Vec::new(),
            account: None,
            lifetime,
            key_type: KeyType::default(),
            revocation_list: None,
        }
    }
}

/// The names that are asked for, by whomever.
pub(super) struct Names<'r> {
    pub(super) name: &'r str,
    pub(super) role: Option<Role>,
    pub(super) dns: &'r [String],
    pub(super) addresses: &'r [IpAddr],
    pub(super) uris: &'r [String],
    pub(super) emails: &'r [String],
    pub(super) account: Option<&'r str>,
}

impl<'r> From<&'r Request> for Names<'r> {
    fn from(request: &'r Request) -> Self {
        Self {
            name: &request.name,
            role: Some(request.role),
            dns: &request.dns,
            addresses: &request.addresses,
            uris: &request.uris,
            emails: &request.emails,
            account: request.account.as_deref(),
        }
    }
}

pub(super) fn check(request: &Names<'_>) -> Result<(), CertificateError> {
    let refuse = |text: String| Err(CertificateError::Request(text));
    if !plain(request.name) {
        return refuse(format!(
            "the name {:?} also names files: use letters, digits, '.', '_' and '-'",
            request.name
        ));
    }
    if matches!(request.role, Some(Role::Server | Role::Master))
        && request.dns.is_empty()
        && request.addresses.is_empty()
    {
        return refuse("name at least one --dns or --ip under which it is dialled".into());
    }
    if request.account.is_some() && request.role != Some(Role::Client) {
        return refuse("an account belongs to the role client".into());
    }
    Ok(())
}

/// The name of a file without its ending; also the name of an entry in a PKCS #12 file.
pub(super) fn check_file_name(name: &str) -> Result<(), CertificateError> {
    match plain(name) {
        true => Ok(()),
        false => Err(CertificateError::Request(format!(
            "the name {name:?} names files: use letters, digits, '.', '_' and '-'"
        ))),
    }
}

pub(super) fn alternative_names(request: &Names<'_>) -> Result<Vec<SanType>, CertificateError> {
    let text = |what: &str, value: &str| {
        rcgen::string::Ia5String::from_str(value).map_err(|_| {
            CertificateError::Request(format!("{what} {value:?} has characters other than ASCII"))
        })
    };
    let mut names = Vec::new();
    for dns in request.dns {
        names.push(SanType::DnsName(text("the host name", dns)?));
    }
    names.extend(request.addresses.iter().copied().map(SanType::IpAddress));
    let role_uri = match request.role {
        Some(Role::Server) => Some(format!("sso-server://{}", request.name)),
        Some(Role::Master) => Some(format!("sso-master://{}", request.name)),
        Some(Role::Client) => request.account.map(account_uri).transpose()?,
        None => None,
    };
    for uri in role_uri.iter().chain(request.uris) {
        names.push(SanType::URI(text("the URI", uri)?));
    }
    for email in request.emails {
        names.push(SanType::Rfc822Name(text("the e-mail address", email)?));
    }
    Ok(names)
}

/// `CORP\alice` as `sso://CORP/alice`: what a server's rule `san_uri = "sso://CORP/*"` matches.
fn account_uri(account: &str) -> Result<String, CertificateError> {
    match account.split_once('\\') {
        Some((domain, name)) if plain(domain) && plain(name) => {
            Ok(format!("sso://{domain}/{name}"))
        }
        _ => Err(CertificateError::Request(format!(
            "the account {account:?} is not DOMAIN\\name of letters, digits, '.', '_' and '-'; for \
             another one give a --uri and a rule for it in the servers' settings"
        ))),
    }
}

fn plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && !name.starts_with('.') && name.chars().all(allowed)
}

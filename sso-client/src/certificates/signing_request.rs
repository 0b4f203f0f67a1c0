//! Certificate requests (PKCS #10): made for other authorities, and signed for other systems.

use std::{net::IpAddr, path::Path};

use rcgen::{
    CertificateParams, IsCa, KeyUsagePurpose, PublicKeyData as _, SanType, SubjectPublicKeyInfo,
};
use serde::Serialize;
use time::{Duration, OffsetDateTime};
use x509_parser::{
    certification_request::X509CertificationRequest,
    error::X509Error,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer as _,
};

use super::{
    Authority, CertificateError, PrivateKey, RequestedName, Role, Subject, Usage, content_error,
    description::{key_kind, name_text},
    files, pem,
    request::{Names, alternative_names, check},
    template,
};

/// More names than anybody looks through before signing.
const MOST_NAMES: usize = 100;

/// What is asked of an authority, of somebody else or one's own.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Name of the files, and the common name where no subject is given.
    pub name: String,
    /// The subject.
    pub subject: Option<Subject>,
    /// The role in this product; `None` for a system outside of it.
    pub role: Option<Role>,
    /// What it is to be used for; the role says it where this is empty.
    pub usages: Vec<Usage>,
    /// Host names.
    pub dns: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// URIs.
    pub uris: Vec<String>,
    /// E-mail addresses.
    pub emails: Vec<String>,
    /// `DOMAIN\name`, of a client of this product.
    pub account: Option<String>,
}

impl Wanted {
    /// The request for this key, signed with it, in PEM.
    ///
    /// # Errors
    /// [`CertificateError::Request`] for names that cannot be.
    pub fn sign(&self, key: &PrivateKey) -> Result<String, CertificateError> {
        let names = Names {
            name: &self.name,
            role: self.role,
            dns: &self.dns,
            addresses: &self.addresses,
            uris: &self.uris,
            emails: &self.emails,
            account: self.account.as_deref(),
        };
        check(&names)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = match &self.subject {
            Some(subject) => subject.clone().into_name(),
            None => template::common_name(&self.name),
        };
        params.subject_alt_names = alternative_names(&names)?;
        params.is_ca = IsCa::NoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let usages = match (self.usages.as_slice(), self.role) {
            ([], Some(role)) => role.usages(),
            (usages, _) => usages,
        };
        params.extended_key_usages = usages.iter().copied().map(Into::into).collect();
        Ok(params.serialize_request(&key.signer()?)?.pem()?)
    }
}

/// A request that came from somebody: its signature is good, nothing else is decided.
#[derive(Clone, Debug, Serialize)]
pub struct SigningRequest {
    /// The subject asked for.
    pub subject: String,
    /// The names asked for, each with its kind in front.
    pub alternative_names: Vec<String>,
    /// Kind and size of its key.
    pub key: String,
    #[serde(skip)]
    subject_fault: Option<String>,
    #[serde(skip)]
    wanted_subject: Option<Subject>,
    #[serde(skip)]
    names: Vec<SanType>,
    #[serde(skip)]
    shown_names: Vec<RequestedName>,
    #[serde(skip)]
    public_key: SubjectPublicKeyInfo,
}

/// What the authority grants: it decides, not the request.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The role in this product; `None` for a system outside of it.
    pub role: Option<Role>,
    /// What it may be used for; the role says it where this is empty.
    pub usages: Vec<Usage>,
    /// How long from now.
    pub lifetime: Duration,
    /// Another subject in place of the one asked for.
    pub subject: Option<Subject>,
    /// Address of the authority's revocation list, named in the certificate.
    pub revocation_list: Option<String>,
}

impl SigningRequest {
    /// Reads a request in PEM or DER, and checks that whoever made it has the private key.
    ///
    /// # Errors
    /// [`CertificateError::RequestSignature`]; it asks to be an authority, for a kind of name that is
    /// not copied, or with a weak key; it is no request.
    pub fn read(path: &Path) -> Result<Self, CertificateError> {
        let bytes = files::read(path)?;
        if !pem::is_pem(&bytes) {
            return Self::parse(&bytes).map_err(|fault| fault.of(path));
        }
        let sections = pem::sections(&bytes).map_err(|what| content_error(path, &what))?;
        match sections.iter().find(|section| section.is_request()) {
            Some(section) => Self::parse(&section.content).map_err(|fault| fault.of(path)),
            None => Err(content_error(path, &"holds no certificate request")),
        }
    }

    /// Writes a request in PEM; nothing is overwritten.
    ///
    /// # Errors
    /// [`CertificateError::Exists`], and what the operating system refuses.
    pub fn write(path: &Path, request: &str) -> Result<(), CertificateError> {
        files::make_folder(files::folder_of(path))?;
        files::write_public(path, request.as_bytes(), false)
    }

    fn parse(der: &[u8]) -> Result<Self, Fault> {
        let (rest, request) = X509CertificationRequest::from_der(der)
            .map_err(|error| Fault(format!("holds no certificate request: {error}"), false))?;
        if !rest.is_empty() {
            return Err("holds a certificate request with something behind it".into());
        }
        match request.verify_signature() {
            Ok(()) => {}
            Err(X509Error::SignatureUnsupportedAlgorithm) => {
                return Err("is signed in a way that is not supported".into());
            }
            Err(_) => return Err(Fault(String::new(), true)),
        }
        let info = &request.certification_request_info;
        let public_key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw)
            .map_err(|_| Fault::from("has a key of a kind that is not supported"))?;
        let mut names = Vec::new();
        let mut texts = Vec::new();
        let mut shown_names = Vec::new();
        for extension in request.requested_extensions().into_iter().flatten() {
            refuse_authority(extension)?;
            let ParsedExtension::SubjectAlternativeName(found) = extension else { continue };
            for name in &found.general_names {
                names.push(taken_over(name)?);
                texts.push(name_text(name));
                shown_names.push(RequestedName::alternative(name));
            }
        }
        if names.len() > MOST_NAMES {
            let text = format!("asks for {} names, and {MOST_NAMES} are the most", names.len());
            return Err(Fault(text, false));
        }
        let subject = Subject::from_x509(&info.subject);
        Ok(Self {
            subject: info.subject.to_string(),
            alternative_names: texts,
            key: key_kind(&info.subject_pki),
            subject_fault: subject.as_ref().err().cloned(),
            wanted_subject: subject.ok(),
            names,
            shown_names,
            public_key,
        })
    }

    /// Every name that a certificate for this request has: the parts of its own subject, or of the
    /// `other` one in its place, and the alternative names.
    ///
    /// # Errors
    /// [`CertificateError::Request`]: its own subject cannot be taken over.
    pub fn names(&self, other: Option<&Subject>) -> Result<Vec<RequestedName>, CertificateError> {
        let subject = self.subject_or(other)?;
        Ok(subject.parts().iter().chain(&self.shown_names).cloned().collect())
    }

    fn subject_or<'s>(
        &'s self,
        other: Option<&'s Subject>,
    ) -> Result<&'s Subject, CertificateError> {
        other.or(self.wanted_subject.as_ref()).ok_or_else(|| {
            let fault = self.subject_fault.as_deref().unwrap_or("cannot be read");
            let text = format!("the subject of the request {fault}: give a --subject");
            CertificateError::Request(text)
        })
    }

    /// Refuses names of this product that do not fit what is granted: a certificate for a system
    /// outside must not name an account, a server or a master.
    fn check_names(&self, role: Option<Role>) -> Result<(), CertificateError> {
        let allowed = role.map(|role| match role {
            Role::Server => "sso-server://",
            Role::Master => "sso-master://",
            Role::Client => "sso://",
        });
        for name in &self.names {
            let SanType::URI(uri) = name else { continue };
            let uri = uri.as_str().to_ascii_lowercase();
            let ours = ["sso:", "sso-server:", "sso-master:"].iter().any(|it| uri.starts_with(it));
            if ours && !allowed.is_some_and(|allowed| uri.starts_with(allowed)) {
                return Err(CertificateError::Request(format!(
                    "the request asks for {uri}, which names somebody in this product: sign it with \
                     the --role that fits, or have it made without this name"
                )));
            }
        }
        Ok(())
    }
}

impl Authority {
    /// Issues the certificate that was asked for, and gives it with its chain in PEM.
    ///
    /// # Errors
    /// [`CertificateError::Request`] for names that do not fit the role, a subject that cannot be taken
    /// over, no purpose, or a lifetime beyond that of the authority.
    pub fn sign_request(
        &self,
        request: &SigningRequest,
        terms: &Terms,
        now: OffsetDateTime,
    ) -> Result<String, CertificateError> {
        let refuse = |text: String| Err(CertificateError::Request(text));
        request.check_names(terms.role)?;
        let subject = request.subject_or(terms.subject.as_ref())?.clone();
        if subject.is_empty() && request.names.is_empty() {
            return refuse("the request names nobody: give a --subject".into());
        }
        let usages = match (terms.usages.as_slice(), terms.role) {
            ([], Some(role)) => role.usages(),
            ([], None) => return refuse("say what it is for: --role or --usage".into()),
            (usages, _) => usages,
        };
        if self.description().has_public_key(&request.public_key.subject_public_key_info()) {
            return refuse("the request has the key of the authority itself".into());
        }
        let development = self.description().development;
        let mut params =
            template::certificate(subject.into_name(), terms.lifetime, development, now)?;
        params.subject_alt_names.clone_from(&request.names);
        template::point_to_list(&mut params, terms.revocation_list.as_deref())?;
        self.issue_for(params, usages, &request.public_key, now)
    }
}

/// What is wrong with a request; `true`: its signature.
struct Fault(String, bool);

impl Fault {
    fn of(self, path: &Path) -> CertificateError {
        match self.1 {
            true => CertificateError::RequestSignature(path.to_owned()),
            false => content_error(path, &self.0),
        }
    }
}

impl From<&str> for Fault {
    fn from(what: &str) -> Self {
        Self(what.to_owned(), false)
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the authority decides about every other extension, whatever is asked for"
)]
fn refuse_authority(extension: &ParsedExtension<'_>) -> Result<(), Fault> {
    let asks = match extension {
        ParsedExtension::BasicConstraints(constraints) => constraints.ca,
        ParsedExtension::KeyUsage(usage) => usage.key_cert_sign() || usage.crl_sign(),
        // It may be the names.
        ParsedExtension::ParseError { .. } => {
            return Err("has an extension that cannot be read".into());
        }
        _ => false,
    };
    match asks {
        true => Err("asks to become an authority: `sso cert ca --parent` makes those".into()),
        false => Ok(()),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "kinds of names that are not copied are refused by what the parser calls them"
)]
fn taken_over(name: &GeneralName<'_>) -> Result<SanType, Fault> {
    let text = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let taken = if plain { rcgen::string::Ia5String::try_from(text).ok() } else { None };
        taken.ok_or_else(|| {
            Fault(format!("asks for the name {text:?}, which no name can be"), false)
        })
    };
    match *name {
        GeneralName::DNSName(dns) => text(dns).map(SanType::DnsName),
        GeneralName::URI(uri) => text(uri).map(SanType::URI),
        GeneralName::RFC822Name(email) => text(email).map(SanType::Rfc822Name),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
            address.map(SanType::IpAddress).map_err(|_| "asks for a malformed address".into())
        }
        _ => Err(Fault(
            format!("asks for the name {name}, which is of a kind that is not copied"),
            false,
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;
    use crate::certificates::{Description, KeyType};

    const NOW: OffsetDateTime = datetime!(2030-01-02 03:04:05 UTC);

    fn der(pem: &str) -> Vec<u8> {
        pem::sections(pem.as_bytes()).unwrap().remove(0).content.to_vec()
    }

    fn wanted() -> Wanted {
        Wanted {
            name: "gateway".into(),
            subject: Some("CN=gw.example,O=Example,C=DE".parse().unwrap()),
            dns: vec!["gw.example".into()],
            addresses: vec!["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
            uris: vec!["https://gw.example/".into()],
            emails: vec!["gw@example.org".into()],
            ..Wanted::default()
        }
    }

    fn terms(role: Option<Role>, usages: &[Usage]) -> Terms {
        Terms {
            role,
            usages: usages.to_vec(),
            lifetime: Duration::days(30),
            subject: None,
            revocation_list: Some("http://pki.example/ca.crl".into()),
        }
    }

    fn parse(pem: &str) -> SigningRequest {
        let parsed = SigningRequest::parse(&der(pem)).map_err(|fault| fault.0);
        parsed.unwrap()
    }

    fn authority() -> Authority {
        Authority::create("Root", Duration::days(365), false, NOW).unwrap()
    }

    fn signed(pem: &str, terms: &Terms) -> Result<Description, CertificateError> {
        let text = authority().sign_request(&parse(pem), terms, NOW)?;
        Ok(Description::read(&der(&text).into()).unwrap())
    }

    #[test]
    fn names_come_from_the_request_and_purposes_from_the_authority() {
        for kind in [KeyType::P256, KeyType::P384, KeyType::Ed25519] {
            let key = PrivateKey::generate(kind).unwrap();
            let request = Wanted { usages: vec![Usage::Server], ..wanted() }.sign(&key).unwrap();
            let found = signed(&request, &terms(None, &[Usage::Client])).unwrap();
            assert_eq!(found.subject, "CN=gw.example, O=Example, C=DE");
            assert_eq!(
                found.alternative_names,
                [
                    "DNS:gw.example",
                    "IP:10.0.0.7",
                    "IP:fd00::7",
                    "URI:https://gw.example/",
                    "email:gw@example.org"
                ]
            );
            assert_eq!(found.usages, ["client"]);
            assert_eq!(found.revocation_lists, ["http://pki.example/ca.crl"]);
            assert_eq!(found.not_after, NOW + Duration::days(30));
            assert!(!found.authority && found.has_public_key(key.public_key()));
        }
    }

    #[test]
    fn a_system_outside_cannot_name_itself_after_somebody_inside() {
        let key = PrivateKey::generate(KeyType::P256).unwrap();
        for (uri, role, allowed) in [
            ("sso://CORP/alice", None, false),
            ("SSO://CORP/alice", None, false),
            ("sso-server://s", None, false),
            ("sso-master://m", Some(Role::Server), false),
            ("sso-server://s", Some(Role::Client), false),
            ("sso://CORP/alice", Some(Role::Client), true),
            ("sso-server://s", Some(Role::Server), true),
            ("https://x/", None, true),
        ] {
            let request = Wanted { uris: vec![uri.into()], ..wanted() }.sign(&key).unwrap();
            let usages: &[_] = if role.is_none() { &[Usage::Client] } else { &[] };
            let result = signed(&request, &terms(role, usages));
            assert_eq!(result.is_ok(), allowed, "{uri} {role:?}: {result:?}");
        }
    }

    #[test]
    fn what_is_asked_in_vain() {
        let key = PrivateKey::generate(KeyType::P256).unwrap();
        let request = wanted().sign(&key).unwrap();
        let refused = |terms: &Terms| {
            let error = signed(&request, terms).unwrap_err();
            assert!(matches!(error, CertificateError::Request(_)), "{error}");
        };
        refused(&terms(None, &[]));
        refused(&Terms { lifetime: Duration::days(366), ..terms(Some(Role::Client), &[]) });
        refused(&Terms {
            revocation_list: Some("ftp://x".into()),
            ..terms(Some(Role::Client), &[])
        });
        let changed =
            Terms { subject: Some("CN=other".parse().unwrap()), ..terms(Some(Role::Client), &[]) };
        assert_eq!(signed(&request, &changed).unwrap().subject, "CN=other");

        // With the key of the authority itself.
        let folder = tempfile::tempdir().unwrap();
        let authority = authority();
        authority.write(folder.path(), false).unwrap();
        let own = PrivateKey::read(&folder.path().join("ca.key"), None).unwrap();
        let request = parse(&wanted().sign(&own).unwrap());
        assert!(authority.sign_request(&request, &terms(Some(Role::Client), &[]), NOW).is_err());
    }

    #[test]
    fn requests_for_authorities_and_changed_ones_are_refused() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let mut other = CertificateParams::default();
        other.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let asks =
            [params.serialize_request(&key).unwrap(), other.serialize_request(&key).unwrap()];
        for request in asks {
            let fault = SigningRequest::parse(request.der()).err().unwrap();
            assert!(fault.0.contains("an authority"), "{}", fault.0);
        }
        let key = PrivateKey::generate(KeyType::P256).unwrap();
        let mut request = der(&wanted().sign(&key).unwrap());
        let at = request.windows(10).position(|window| window == b"gw.example").unwrap();
        request[at] = b'x';
        assert!(SigningRequest::parse(&request).err().unwrap().1, "a signature that is wrong");
    }

    #[test]
    fn the_names_are_those_of_the_certificate() {
        let key = PrivateKey::generate(KeyType::P256).unwrap();
        let request = parse(&wanted().sign(&key).unwrap());
        let shown = |other: Option<&Subject>| -> Vec<_> {
            request.names(other).unwrap().iter().map(ToString::to_string).collect()
        };
        let own = shown(None);
        assert_eq!(
            own[..4],
            ["CN \"gw.example\"", "O \"Example\"", "C \"DE\"", "DNS \"gw.example\""]
        );
        assert_eq!(own.len(), 8);
        assert_eq!(shown(Some(&"CN=x".parse().unwrap()))[..2], ["CN \"x\"", "DNS \"gw.example\""]);

        let many = (0..=MOST_NAMES).map(|number| format!("h{number}.example")).collect();
        let many = Wanted { dns: many, ..wanted() }.sign(&key).unwrap();
        let fault = SigningRequest::parse(&der(&many)).err().unwrap();
        assert!(fault.0.contains("100 are the most"), "{}", fault.0);
    }

    #[test]
    fn subjects_that_cannot_be_copied_need_another_one() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let nobody = signed(&request, &terms(Some(Role::Client), &[])).unwrap_err();
        assert!(nobody.to_string().contains("names nobody"), "{nobody}");

        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "o".repeat(65));
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let long = signed(&request, &terms(Some(Role::Client), &[])).unwrap_err();
        assert!(long.to_string().contains("more than 64 characters: give a --subject"), "{long}");
        assert!(parse(&request).names(None).is_err());
        let other = "CN=short".parse().unwrap();
        let changed = Terms { subject: Some(other), ..terms(Some(Role::Client), &[]) };
        assert_eq!(signed(&request, &changed).unwrap().subject, "CN=short");
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = SigningRequest::parse(&bytes);
        }

        #[test]
        fn a_damaged_request_never_panics(at in any::<prop::sample::Index>(), value in any::<u8>()) {
            static MADE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
            let made = MADE.get_or_init(|| {
                der(&wanted().sign(&PrivateKey::generate(KeyType::P256).unwrap()).unwrap())
            });
            let mut bytes = made.clone();
            let at = at.index(bytes.len());
            bytes[at] = value;
            // Around what is signed there may be changes that mean nothing.
            if let Ok(parsed) = SigningRequest::parse(&bytes) {
                let original = SigningRequest::parse(made).map_err(|fault| fault.0).unwrap();
                prop_assert_eq!(parsed.subject, original.subject);
                prop_assert_eq!(parsed.names, original.names);
                prop_assert_eq!(parsed.public_key, original.public_key);
            }
        }
    }
}

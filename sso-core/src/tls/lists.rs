//! Revocation lists: what one says, whom it is about, who signed it.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    fs::File,
    io::{self, Read as _},
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pkcs8::der::pem::{LineEnding, encode_string};
use rustls::{
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateRevocationListDer, pem::PemObject as _},
};
use time::{Duration, OffsetDateTime};
use webpki::{BorrowedCertRevocationList, Cert, CertRevocationList};
use x509_parser::{
    extensions::{DistributionPointName, GeneralName, ParsedExtension},
    oid_registry::OID_X509_EXT_CRL_DISTRIBUTION_POINTS,
    prelude::{FromDer as _, X509Certificate, X509Name},
    time::ASN1Time,
};

use super::settings::ListSource;

/// Bytes of the largest list, and of the largest file of lists.
pub(super) const LIST_MAX: u64 = 64 * 1024 * 1024;
/// Lists that one answer of a distribution point may hold.
pub(super) const ANSWERED_MAX: usize = 16;
/// Lists that one file of the settings may hold.
pub(super) const FILED_MAX: usize = 64;
/// Lists that one file of the folder for lists may hold: more than are ever written.
pub(super) const CACHED_MAX: usize = 256;
/// How far the clock of an authority may be ahead.
const AHEAD: Duration = Duration::minutes(5);
/// Keys that a list remembers whether they signed it.
const SIGNERS_MAX: usize = 64;

/// Why a list, or what should be one, is not to be had. In words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ListProblem(pub(super) String);

impl ListProblem {
    fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

/// One list, read in full. Nothing is known yet about who signed it.
pub(crate) struct RevocationList {
    pub(super) source: ListSource,
    /// The name of the authority in one line.
    pub(super) issuer: String,
    pub(super) this_update: OffsetDateTime,
    pub(super) next_update: OffsetDateTime,
    /// The content of the authority's name in DER.
    issuer_der: Vec<u8>,
    /// The content of the revoked serial numbers in DER.
    revoked: HashSet<Box<[u8]>>,
    /// `None`: all certificates of the authority.
    scope: Option<Scope>,
    der: Vec<u8>,
    signed: Signed,
    /// Which keys signed the list and which did not. A list of megabytes is hashed once, not at every
    /// handshake.
    signers: Mutex<HashMap<Vec<u8>, bool>>,
}

/// Where in the list its signature is.
struct Signed {
    message: Range<usize>,
    algorithm: Range<usize>,
    signature: Range<usize>,
}

/// Which certificates of an authority a partial list is about.
struct Scope {
    only_leaves: bool,
    only_authorities: bool,
    /// The distribution points of the list.
    urls: Vec<String>,
}

impl fmt::Debug for RevocationList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationList")
            .field("source", &self.source)
            .field("issuer", &self.issuer)
            .field("next_update", &self.next_update)
            .field("revoked", &self.revoked.len())
            .finish_non_exhaustive()
    }
}

/// The lists in a file, PEM or DER, which are said to come from `source`.
pub(super) fn read_lists(
    path: &Path,
    source: &ListSource,
    most: usize,
) -> io::Result<Result<Vec<Arc<RevocationList>>, ListProblem>> {
    let mut content = Vec::new();
    File::open(path)?.take(LIST_MAX + 1).read_to_end(&mut content)?;
    Ok(parse_lists(source, &content, most))
}

/// The lists in these bytes: one in DER, or up to `most` in PEM and nothing else beside them.
pub(super) fn parse_lists(
    source: &ListSource,
    content: &[u8],
    most: usize,
) -> Result<Vec<Arc<RevocationList>>, ListProblem> {
    if content.len() as u64 > LIST_MAX {
        return Err(ListProblem::new(format!("is larger than {} MiB", LIST_MAX >> 20)));
    }
    let one = |der: &[u8]| RevocationList::parse(source.clone(), der).map(Arc::new);
    if content.first() == Some(&SEQUENCE) {
        return Ok(vec![one(content)?]);
    }
    let found = CertificateRevocationListDer::pem_slice_iter(content)
        .take(most + 1)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| ListProblem::new(format!("is not PEM: {error}")))?;
    if found.len() > most {
        return Err(ListProblem::new(format!("holds more than {most} lists")));
    }
    let sections = content.windows(11).filter(|window| window == b"-----BEGIN ").count();
    if found.is_empty() {
        return Err(ListProblem::new("holds none: a list in PEM or DER is expected"));
    }
    if found.len() != sections {
        return Err(ListProblem::new("holds PEM sections of another kind: remove them"));
    }
    found.iter().map(|der| one(der)).collect()
}

impl RevocationList {
    fn parse(source: ListSource, der: &[u8]) -> Result<Self, ListProblem> {
        // The library that checks certificates is strict, and knows what it cannot do.
        let strict = BorrowedCertRevocationList::from_der(der).map_err(|error| unusable(&error))?;
        let mut revoked = HashSet::new();
        for entry in &strict {
            let entry = entry.map_err(|error| unusable(&error))?;
            revoked.insert(entry.serial_number.into());
        }
        let strict = CertRevocationList::from(strict);
        let head = Head::read(der).ok_or_else(|| ListProblem::new("cannot be read"))?;
        let scope = match strict.issuing_distribution_point() {
            Some(point) => Some(
                Scope::read(point)
                    .ok_or_else(|| ListProblem::new("has a scope that cannot be read"))?,
            ),
            None => None,
        };
        Ok(Self {
            source,
            issuer: head.issuer,
            this_update: head.this_update,
            next_update: head.next_update,
            issuer_der: strict.issuer().to_vec(),
            revoked,
            scope,
            signed: head.signed,
            der: der.to_vec(),
            signers: Mutex::default(),
        })
    }

    /// Whether both hold the same bytes.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.der == other.der
    }

    /// Whether the list is of the authority with this name (the content of it in DER).
    pub(super) fn is_of(&self, subject: &[u8]) -> bool {
        self.issuer_der == subject
    }

    /// Whether both are of authorities of one name, and about the same certificates of them.
    pub(super) fn has_place_of(&self, other: &Self) -> bool {
        let urls = |list: &Self| list.scope.as_ref().map(|scope| scope.urls.clone());
        self.issuer_der == other.issuer_der && urls(self) == urls(other)
    }

    /// Whether the list says anything about the certificate, revoked or not.
    pub(super) fn is_about(&self, certificate: &Cert<'_>, is_leaf: bool) -> bool {
        if !self.is_of(certificate.issuer()) {
            return false;
        }
        let Some(scope) = &self.scope else { return true };
        if scope.only_leaves && !is_leaf || scope.only_authorities && is_leaf {
            return false;
        }
        if scope.urls.is_empty() {
            return true;
        }
        match distribution_points(&certificate.der()) {
            Some(urls) => urls.iter().any(|url| scope.urls.contains(url)),
            None => true,
        }
    }

    pub(super) fn names(&self, certificate: &Cert<'_>) -> bool {
        self.revoked.contains(certificate.serial())
    }

    pub(super) fn has_ended(&self, now: OffsetDateTime) -> bool {
        self.next_update <= now
    }

    /// Whether the list is issued later than it is now.
    pub(super) fn is_early(&self, now: OffsetDateTime) -> bool {
        self.this_update > now + AHEAD
    }

    /// Whether it is known who signed it.
    pub(super) fn is_proven(&self) -> bool {
        self.signers().values().any(|signed| *signed)
    }

    /// The list as text.
    pub(super) fn pem(&self) -> Option<String> {
        encode_string("X509 CRL", LineEnding::LF, &self.der).ok()
    }

    /// Whether the key signed the list: the content of a `SubjectPublicKeyInfo` in DER.
    pub(super) fn is_signed_by(&self, key: &[u8], algorithms: WebPkiSupportedAlgorithms) -> bool {
        if let Some(known) = self.signers().get(key) {
            return *known;
        }
        let signed = self.verify(key, algorithms).is_some();
        let mut signers = self.signers();
        if signers.len() >= SIGNERS_MAX {
            signers.retain(|_, signed| *signed);
        }
        if signers.len() < SIGNERS_MAX {
            signers.insert(key.to_vec(), signed);
        }
        signed
    }

    /// The keys that are known to have signed the list: the contents of their `SubjectPublicKeyInfo`.
    pub(super) fn known_signers(&self) -> Vec<Vec<u8>> {
        self.signers().iter().filter(|(_, signed)| **signed).map(|(key, _)| key.clone()).collect()
    }

    fn signers(&self) -> MutexGuard<'_, HashMap<Vec<u8>, bool>> {
        self.signers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verify(&self, key: &[u8], algorithms: WebPkiSupportedAlgorithms) -> Option<()> {
        let algorithm_of_key = Element::read(key)?;
        let public = bits(&Element::read(algorithm_of_key.rest)?)?;
        let message = self.der.get(self.signed.message.clone())?;
        let algorithm = self.der.get(self.signed.algorithm.clone())?;
        let signature = self.der.get(self.signed.signature.clone())?;
        let fitting = algorithms.all.iter().filter(|known| {
            known.signature_alg_id().as_ref() == algorithm
                && known.public_key_alg_id().as_ref() == algorithm_of_key.content
        });
        let mut verified = fitting.map(|it| it.verify_signature(public, message, signature));
        verified.any(|result| result.is_ok()).then_some(())
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library's own text serves")]
fn unusable(error: &webpki::Error) -> ListProblem {
    ListProblem::new(match error {
        webpki::Error::UnsupportedDeltaCrl => {
            "is a delta list, which alone says nothing: name the full list".to_owned()
        }
        webpki::Error::UnsupportedIndirectCrl => {
            "is an indirect list (of certificates of several authorities), which is not supported"
                .to_owned()
        }
        webpki::Error::UnsupportedCrlVersion => {
            "is of version 1: a list of version 2 is needed".to_owned()
        }
        _ => format!("cannot be used as a revocation list ({error})"),
    })
}

/// The addresses in the certificate of where its list is; `None`: it says nothing about that.
fn distribution_points(certificate: &[u8]) -> Option<Vec<String>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut extensions = parsed.extensions().iter();
    let extension = extensions.find(|it| it.oid == OID_X509_EXT_CRL_DISTRIBUTION_POINTS)?;
    let ParsedExtension::CRLDistributionPoints(points) = extension.parsed_extension() else {
        return Some(Vec::new());
    };
    let mut urls = Vec::new();
    for point in points.iter().filter(|it| it.reasons.is_none() && it.crl_issuer.is_none()) {
        let Some(DistributionPointName::FullName(names)) = &point.distribution_point else {
            continue;
        };
        for name in names {
            if let GeneralName::URI(url) = name {
                urls.push((*url).to_owned());
            }
        }
    }
    Some(urls)
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;

/// What stands at the beginning of a list, and where its parts are.
struct Head {
    issuer: String,
    this_update: OffsetDateTime,
    next_update: OffsetDateTime,
    signed: Signed,
}

impl Head {
    fn read(der: &[u8]) -> Option<Self> {
        let list = Element::read(der)?;
        let content_at = list.content_at;
        let message = Element::read(list.content)?;
        let algorithm = Element::read(message.rest)?;
        let signature = Element::read(algorithm.rest)?;
        let after_message = content_at + message.length();
        let after_algorithm = after_message + algorithm.length();
        // Behind the number of unused bits.
        let signature_at = after_algorithm + signature.content_at + 1;
        let signature_length = bits(&signature)?.len();
        let signed = Signed {
            message: content_at..after_message,
            algorithm: after_message + algorithm.content_at..after_algorithm,
            signature: signature_at..signature_at + signature_length,
        };

        let version = Element::read(message.content).filter(|it| it.tag == INTEGER)?;
        let algorithm = Element::read(version.rest)?;
        let (after_issuer, issuer) = X509Name::from_der(algorithm.rest).ok()?;
        let (after_this, this_update) = ASN1Time::from_der(after_issuer).ok()?;
        let (_, next_update) = ASN1Time::from_der(after_this).ok()?;
        Some(Self {
            issuer: issuer.to_string(),
            this_update: this_update.to_datetime(),
            next_update: next_update.to_datetime(),
            signed,
        })
    }
}

impl Scope {
    fn read(point: &[u8]) -> Option<Self> {
        let mut scope = Self { only_leaves: false, only_authorities: false, urls: Vec::new() };
        let mut rest = Element::read(point)?.content;
        while !rest.is_empty() {
            let part = Element::read(rest)?;
            match part.tag {
                0xa0 => scope.urls = urls(Element::read(part.content)?.content)?,
                0x81 => scope.only_leaves = part.content == [0xff],
                0x82 => scope.only_authorities = part.content == [0xff],
                _ => return None,
            }
            rest = part.rest;
        }
        Some(scope)
    }
}

/// The addresses among general names.
fn urls(mut names: &[u8]) -> Option<Vec<String>> {
    let mut urls = Vec::new();
    while !names.is_empty() {
        let name = Element::read(names)?;
        if name.tag == 0x86 {
            urls.push(String::from_utf8(name.content.to_vec()).ok()?);
        }
        names = name.rest;
    }
    Some(urls)
}

/// The bytes of a bit string of whole bytes.
fn bits<'d>(element: &Element<'d>) -> Option<&'d [u8]> {
    match element.content.split_first() {
        Some((0, bytes)) if element.tag == BIT_STRING => Some(bytes),
        _ => None,
    }
}

/// A DER element. What is read here has passed the strict parser already, so that this one needs to be
/// no stricter than not to stumble.
struct Element<'d> {
    tag: u8,
    content_at: usize,
    content: &'d [u8],
    rest: &'d [u8],
}

impl<'d> Element<'d> {
    fn read(input: &'d [u8]) -> Option<Self> {
        let (&tag, &first) = (input.first()?, input.get(1)?);
        let (length, content_at) = if first < 0x80 {
            (usize::from(first), 2)
        } else {
            let count = usize::from(first & 0x7f);
            if !(1..=4).contains(&count) {
                return None;
            }
            let bytes = input.get(2..2 + count)?;
            let length = bytes.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
            (length, 2 + count)
        };
        let end = content_at.checked_add(length)?;
        Some(Self {
            tag,
            content_at,
            content: input.get(content_at..end)?,
            rest: input.get(end..)?,
        })
    }

    fn length(&self) -> usize {
        self.content_at + self.content.len()
    }
}

#[cfg(test)]
mod tests;

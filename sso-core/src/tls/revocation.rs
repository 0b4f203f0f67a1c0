//! Whether a certificate is revoked, as far as the lists at hand can tell.

use std::{cell::RefCell, collections::BTreeSet, sync::Arc};

use rustls::{
    RootCertStore,
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, UnixTime},
};
use time::OffsetDateTime;
use webpki::{Cert, EndEntityCert, KeyUsage, VerifiedPath};

use super::{
    TlsReason, lists::RevocationList, own::shown, settings::RevocationPolicy, sources::Sources,
};
use crate::{peer::parse_x509, verifier::Refusal};

/// The lists at hand, and what to do when they do not tell.
#[derive(Debug)]
pub(crate) struct Revocation {
    pub(super) policy: RevocationPolicy,
    pub(super) lists: Vec<Arc<RevocationList>>,
    /// Why lists are missing, for the words of a refusal.
    pub(super) sources: Arc<Sources>,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

/// What the lists say about one certificate of a path; later ones are worse news.
enum Finding {
    Good,
    Unknown(Refusal),
    Revoked(Refusal),
}

impl Revocation {
    /// Looks for a path from the certificate to an authority on which no certificate is revoked. The
    /// chain itself has been verified before.
    ///
    /// `Ok(Some(_))`: the lists do not tell, and the policy lets that pass.
    pub(crate) fn check(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        usage: KeyUsage,
        now: UnixTime,
    ) -> Result<Option<Refusal>, Refusal> {
        if self.policy == RevocationPolicy::Off {
            return Ok(None);
        }
        let refuse = |words: &str| Refusal::new(TlsReason::CertificateUnusable, words);
        let own = EndEntityCert::try_from(own).map_err(|_| refuse("it cannot be read"))?;
        let time = i64::try_from(now.as_secs()).ok();
        let time = time.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
        let time = time.ok_or_else(|| refuse("the clock shows a time that cannot be"))?;

        let met = RefCell::new(None);
        let judge = |path: &VerifiedPath<'_>| match self.judge(path, time) {
            Finding::Good => {
                met.replace(None);
                Ok(())
            }
            Finding::Unknown(trouble) => {
                if matches!(&*met.borrow(), Some(earlier) if is_revoked(earlier)) {
                    return Err(webpki::Error::UnknownRevocationStatus);
                }
                met.replace(Some(trouble));
                match self.policy {
                    RevocationPolicy::SoftFail => Ok(()),
                    RevocationPolicy::HardFail | RevocationPolicy::Off => {
                        Err(webpki::Error::UnknownRevocationStatus)
                    }
                }
            }
            Finding::Revoked(revoked) => {
                met.replace(Some(revoked));
                Err(webpki::Error::CertRevoked)
            }
        };
        let found = own.verify_for_usage(
            self.algorithms.all,
            &self.roots.roots,
            others,
            now,
            usage,
            None,
            Some(&judge),
        );
        match (found.is_ok(), met.take()) {
            (true, lenient) => Ok(lenient),
            (false, Some(refusal)) => Err(refusal),
            (false, None) => Err(refuse("no path to a trusted authority is found")),
        }
    }

    /// The worst of the path: a certificate that is revoked, else the first that the lists do not tell
    /// about.
    fn judge(&self, path: &VerifiedPath<'_>, now: OffsetDateTime) -> Finding {
        let leaf: &Cert<'_> = path.end_entity();
        let mut certificates = vec![leaf];
        certificates.extend(path.intermediate_certificates());
        let mut trouble = None;
        for (at, certificate) in certificates.iter().enumerate() {
            let issuer = match certificates.get(at + 1) {
                Some(above) => Issuer::intermediate(above),
                None => Issuer {
                    key: path.anchor().subject_public_key_info.to_vec(),
                    may_sign_lists: true,
                },
            };
            match self.judge_one(certificate, at == 0, &issuer, now) {
                Finding::Good => {}
                Finding::Unknown(refusal) => trouble = trouble.or(Some(refusal)),
                Finding::Revoked(refusal) => return Finding::Revoked(refusal),
            }
        }
        trouble.map_or(Finding::Good, Finding::Unknown)
    }

    fn judge_one(
        &self,
        certificate: &Cert<'_>,
        is_leaf: bool,
        issuer: &Issuer,
        now: OffsetDateTime,
    ) -> Finding {
        let (mut fresh, mut ended, mut foreign, mut early) = (None, None, None, None);
        for list in self.lists.iter().filter(|list| list.is_of(certificate.issuer())) {
            let is_signed = list.is_signed_by(&issuer.key, self.algorithms);
            // What the authority says against a certificate counts wherever and however it says so.
            if is_signed && list.names(certificate) {
                let words = format!(
                    "{} is revoked, says the list of {} from {}",
                    which(certificate, is_leaf),
                    list.issuer,
                    list.source
                );
                return Finding::Revoked(Refusal::new(TlsReason::CertificateRevoked, words));
            }
            if !list.is_about(certificate, is_leaf) {
                continue;
            }
            if !is_signed || !issuer.may_sign_lists {
                foreign = Some(list);
            } else if list.has_ended(now) {
                ended = Some(list);
            } else if list.is_early(now) {
                early = Some(list);
            } else {
                fresh = Some(list);
            }
        }
        let unknown = |reason, words: String| Finding::Unknown(Refusal::new(reason, words));
        match (fresh, ended, early.or(foreign)) {
            (Some(_), _, _) => Finding::Good,
            (None, Some(list), _) => unknown(
                TlsReason::RevocationListExpired,
                format!(
                    "nobody can tell whether {} is revoked: the revocation list of {} from {} ended on \
                     {}",
                    which(certificate, is_leaf),
                    list.issuer,
                    list.source,
                    shown(list.next_update)
                ),
            ),
            (None, None, Some(list)) if early.is_some() => unknown(
                TlsReason::RevocationListUnavailable,
                format!(
                    "nobody can tell whether {} is revoked: the revocation list of {} from {} is \
                     issued from {} on, and here it is earlier",
                    which(certificate, is_leaf),
                    list.issuer,
                    list.source,
                    shown(list.this_update)
                ),
            ),
            (None, None, Some(list)) => unknown(
                TlsReason::RevocationListUntrusted,
                format!(
                    "nobody can tell whether {} is revoked: the revocation list of {} from {} has the \
                     name of its authority and is not signed by it",
                    which(certificate, is_leaf),
                    list.issuer,
                    list.source
                ),
            ),
            (None, None, None) => unknown(
                TlsReason::RevocationListUnavailable,
                format!(
                    "nobody can tell whether {} is revoked: no revocation list of its authority {} is \
                     at hand; {}",
                    which(certificate, is_leaf),
                    issuer_name(certificate),
                    self.at_hand()
                ),
            ),
        }
    }

    /// Which lists there are, and why others are missing.
    fn at_hand(&self) -> String {
        let of: BTreeSet<&str> = self.lists.iter().map(|list| list.issuer.as_str()).collect();
        let mut words = if of.is_empty() {
            "there is none at all".to_owned()
        } else {
            format!("there are those of {}", of.into_iter().collect::<Vec<_>>().join(" and of "))
        };
        for (url, problem) in self.sources.problems() {
            words.push_str(&format!("; {url}: {problem}"));
        }
        words
    }
}

/// Who issued a certificate of the path.
struct Issuer {
    /// The content of its public key in DER.
    key: Vec<u8>,
    may_sign_lists: bool,
}

impl Issuer {
    fn intermediate(certificate: &Cert<'_>) -> Self {
        let der = certificate.der();
        let parsed = parse_x509(&der).ok();
        let usage = parsed.as_ref().map(|it| it.key_usage());
        Self {
            key: parsed.as_ref().map(|it| content_of_key(it.public_key().raw)).unwrap_or_default(),
            may_sign_lists: match usage {
                Some(Ok(Some(usage))) => usage.value.crl_sign(),
                // Authorities of old have no such extension and may do everything.
                Some(Ok(None)) => true,
                Some(Err(_)) | None => false,
            },
        }
    }
}

/// The inside of a `SubjectPublicKeyInfo`.
pub(super) fn content_of_key(key: &[u8]) -> Vec<u8> {
    let header = match key.get(1) {
        Some(length @ 0x80..) => 2 + usize::from(length & 0x7f),
        _ => 2,
    };
    key.get(header..).unwrap_or_default().to_vec()
}

fn is_revoked(refusal: &Refusal) -> bool {
    refusal.reason == TlsReason::CertificateRevoked
}

/// "it" for the peer's own certificate, the name of an authority otherwise.
fn which(certificate: &Cert<'_>, is_leaf: bool) -> String {
    if is_leaf {
        return "it".to_owned();
    }
    let der = certificate.der();
    match parse_x509(&der) {
        Ok(parsed) => format!("the authority {}", parsed.subject()),
        Err(_) => "an authority of it".to_owned(),
    }
}

fn issuer_name(certificate: &Cert<'_>) -> String {
    let der = certificate.der();
    parse_x509(&der).map_or_else(|_| "(unreadable)".to_owned(), |it| it.issuer().to_string())
}

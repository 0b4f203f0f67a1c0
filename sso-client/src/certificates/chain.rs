//! From a leaf up to an authority that is trusted.

use std::sync::Arc;

use rustls::{
    RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, UnixTime},
    server::{ParsedCertificate, WebPkiClientVerifier},
};
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, error::X509Error, prelude::FromDer as _};

use super::{CertificateError, Description, Usage};

/// A leaf and four intermediate authorities: the programs refuse longer chains.
const LONGEST: usize = 5;

/// A leaf with everything between it and a trusted authority.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The leaf first, then each with its issuer behind it; without the trusted authority.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The trusted authority that it ends at.
    pub authority: Description,
    /// What the leaf says.
    pub leaf: Description,
}

impl Chain {
    /// Finds the way from `leaf` to one of the `authorities`, with the certificates of `others` between,
    /// and judges it as the programs of this product do at `now`: validity of every certificate, purpose
    /// of the leaf, signatures, limits. Revocation is not looked at.
    ///
    /// `usages`: what the leaf has to be good for; where empty, serving or calling, either will do.
    ///
    /// # Errors
    /// [`CertificateError::Expired`], [`CertificateError::NotYetValid`],
    /// [`CertificateError::WrongPurpose`], [`CertificateError::ChainIncomplete`], and
    /// [`CertificateError::ChainInvalid`] for everything else.
    pub fn build(
        leaf: &CertificateDer<'static>,
        others: &[CertificateDer<'static>],
        authorities: &[CertificateDer<'static>],
        usages: &[Usage],
        now: OffsetDateTime,
    ) -> Result<Self, CertificateError> {
        let read = |der: &CertificateDer<'static>| {
            Description::read(der).map_err(CertificateError::Request)
        };
        let leaf_description = read(leaf)?;
        leaf_description.require_valid(now)?;
        require_purpose(&leaf_description, usages)?;
        let mut certificates = vec![leaf.clone()];
        let mut last = leaf_description.clone();
        let mut last_der = leaf.clone();
        loop {
            if let Some(found) = issuer(&last_der, &last, authorities, now)? {
                found.1.require_valid(now)?;
                let chain = Self { certificates, authority: found.1, leaf: leaf_description };
                chain.verify(&found.0, usages, now)?;
                return Ok(chain);
            }
            let next = issuer(&last_der, &last, others, now)?;
            let Some((der, description)) = next.filter(|(der, _)| !certificates.contains(der))
            else {
                let (subject, issuer) = (last.subject, last.issuer);
                return Err(CertificateError::ChainIncomplete { subject, issuer });
            };
            description.require_valid(now)?;
            certificates.push(der.clone());
            if certificates.len() > LONGEST {
                let what = format!("it has more than {LONGEST} certificates");
                let subject = leaf_description.subject;
                return Err(CertificateError::ChainInvalid { subject, what });
            }
            (last, last_der) = (description, der);
        }
    }

    /// What the TLS library says about it.
    fn verify(
        &self,
        authority: &CertificateDer<'static>,
        usages: &[Usage],
        now: OffsetDateTime,
    ) -> Result<(), CertificateError> {
        let subject = &self.leaf.subject;
        let invalid = |error: rustls::Error| CertificateError::ChainInvalid {
            subject: subject.clone(),
            what: error.to_string(),
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).map_err(invalid)?;
        let seconds = u64::try_from(now.unix_timestamp()).unwrap_or_default();
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let (leaf, between) = match self.certificates.as_slice() {
            [leaf, between @ ..] => (leaf, between),
            [] => return Ok(()),
        };
        let provider = Arc::new(default_provider());
        let wanted = match usages {
            [] if self.leaf.may_serve() => &[Usage::Server],
            [] => &[Usage::Client],
            usages => usages,
        };
        for usage in wanted {
            match usage {
                Usage::Server => {
                    let parsed = ParsedCertificate::try_from(leaf).map_err(invalid)?;
                    let algorithms = provider.signature_verification_algorithms.all;
                    verify_server_cert_signed_by_trust_anchor(
                        &parsed, &roots, between, time, algorithms,
                    )
                    .map_err(invalid)?;
                }
                Usage::Client => {
                    let roots = Arc::new(roots.clone());
                    let verifier =
                        WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
                            .build()
                            .map_err(|error| CertificateError::ChainInvalid {
                                subject: subject.clone(),
                                what: error.to_string(),
                            })?;
                    verifier.verify_client_cert(leaf, between, time).map_err(invalid)?;
                }
            }
        }
        Ok(())
    }
}

fn require_purpose(leaf: &Description, usages: &[Usage]) -> Result<(), CertificateError> {
    let wrong =
        |what: String| Err(CertificateError::WrongPurpose { subject: leaf.subject.clone(), what });
    if leaf.authority {
        return wrong("is that of an authority: it signs certificates, it is not for TLS".into());
    }
    let purposes = leaf.usages.join(", ");
    if usages.is_empty() && !leaf.may_serve() && !leaf.may_call() {
        return wrong(format!("is not for TLS: its purposes are {purposes}"));
    }
    if usages.contains(&Usage::Server) && !leaf.may_serve() {
        return wrong(format!("is not for TLS servers: its purposes are {purposes}"));
    }
    if usages.contains(&Usage::Client) && !leaf.may_call() {
        return wrong(format!("is not for TLS clients: its purposes are {purposes}"));
    }
    Ok(())
}

type Found = (CertificateDer<'static>, Description);

/// Who issued it, by name, key and signature; of several the one that is valid now.
fn issuer(
    der: &CertificateDer<'static>,
    certificate: &Description,
    among: &[CertificateDer<'static>],
    now: OffsetDateTime,
) -> Result<Option<Found>, CertificateError> {
    let mut found: Option<Found> = None;
    for candidate in among {
        let description = Description::read(candidate).map_err(CertificateError::Request)?;
        if candidate == der
            || !certificate.is_issued_by(&description)
            || !may_have_signed(der, candidate)
        {
            continue;
        }
        if description.require_valid(now).is_ok() {
            return Ok(Some((candidate.clone(), description)));
        }
        found.get_or_insert((candidate.clone(), description));
    }
    Ok(found)
}

/// `false` only for a signature that was checked and is wrong; the TLS library has the last word.
fn may_have_signed(certificate: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> bool {
    match (X509Certificate::from_der(certificate), X509Certificate::from_der(issuer)) {
        (Ok((_, one)), Ok((_, issuer))) => matches!(
            one.verify_signature(Some(issuer.public_key())),
            Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm)
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use time::{Duration, macros::datetime};

    use super::*;
    use crate::certificates::{Authority, KeyType, Request, Role, pem};

    const NOW: OffsetDateTime = datetime!(2030-01-02 03:04:05 UTC);

    fn ders(pem: &str) -> Vec<CertificateDer<'static>> {
        let sections = pem::sections(pem.as_bytes()).unwrap();
        sections.iter().map(|it| CertificateDer::from(it.content.to_vec())).collect()
    }

    struct Pki {
        root: Vec<CertificateDer<'static>>,
        below: Vec<CertificateDer<'static>>,
        leaf: CertificateDer<'static>,
    }

    fn pki(role: Role) -> Pki {
        let root = Authority::create("Root", Duration::days(3650), false, NOW).unwrap();
        let below =
            root.create_intermediate("Below", KeyType::P256, Duration::days(900), NOW).unwrap();
        let mut request = Request::new("leaf", role, Duration::days(30));
        request.dns = vec!["leaf.example".into()];
        let mut leaf = ders(&below.issue(&request, NOW).unwrap().certificate);
        Pki {
            root: ders(root.certificate()),
            below: ders(below.certificate()),
            leaf: leaf.remove(0),
        }
    }

    #[test]
    fn the_way_up_is_found_and_judged() {
        let pki = pki(Role::Server);
        for usages in [&[][..], &[Usage::Server], &[Usage::Client], &[Usage::Server, Usage::Client]]
        {
            let chain = Chain::build(&pki.leaf, &pki.below, &pki.root, usages, NOW).unwrap();
            assert_eq!(chain.certificates, [pki.leaf.clone(), pki.below[0].clone()]);
            assert_eq!(chain.authority.subject, "CN=Root");
        }
        // Trust may start in the middle.
        let chain = Chain::build(&pki.leaf, &[], &pki.below, &[], NOW).unwrap();
        assert_eq!(chain.certificates.len(), 1);
    }

    #[test]
    fn every_fault_has_its_name() {
        let one = pki(Role::Client);
        let other = pki(Role::Client);
        let build =
            |others: &[CertificateDer<'static>],
             roots: &[CertificateDer<'static>],
             usages: &[Usage],
             now| { Chain::build(&one.leaf, others, roots, usages, now).unwrap_err() };
        let missing = build(&[], &one.root, &[], NOW);
        let CertificateError::ChainIncomplete { subject, issuer } = &missing else {
            panic!("{missing}")
        };
        assert_eq!((subject.as_str(), issuer.as_str()), ("CN=leaf", "CN=Below"));
        // Namesakes with other keys.
        let foreign = build(&other.below, &other.root, &[], NOW);
        assert!(matches!(foreign, CertificateError::ChainIncomplete { .. }), "{foreign}");
        let rootless = build(&one.below, &other.root, &[], NOW);
        let CertificateError::ChainIncomplete { subject, .. } = &rootless else {
            panic!("{rootless}")
        };
        assert_eq!(subject, "CN=Below");

        let late = build(&one.below, &one.root, &[], NOW + Duration::days(31));
        assert!(matches!(late, CertificateError::Expired { .. }), "{late}");
        let early = build(&one.below, &one.root, &[], NOW - Duration::DAY);
        assert!(matches!(early, CertificateError::NotYetValid { .. }), "{early}");
        let purpose = build(&one.below, &one.root, &[Usage::Server], NOW);
        assert!(matches!(purpose, CertificateError::WrongPurpose { .. }), "{purpose}");
        let authority = Chain::build(&one.below[0], &[], &one.root, &[], NOW).unwrap_err();
        assert!(matches!(authority, CertificateError::WrongPurpose { .. }), "{authority}");
    }

    #[test]
    fn limits_of_an_authority_are_kept() {
        // Below an authority that may issue leaves only.
        let root = Authority::create("Root", Duration::days(3650), false, NOW).unwrap();
        let below =
            root.create_intermediate("Below", KeyType::P256, Duration::days(900), NOW).unwrap();
        let refused = below.create_intermediate("Deep", KeyType::P256, Duration::days(90), NOW);
        assert!(matches!(refused, Err(CertificateError::Request(_))));
    }
}

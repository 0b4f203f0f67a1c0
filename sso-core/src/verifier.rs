//! What is asked of a peer's certificates before and beside the checks of the TLS library.

use std::sync::{Arc, OnceLock};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    time_provider::TimeProvider,
};
use time::OffsetDateTime;
use webpki::KeyUsage;

use crate::{
    clock::Clock,
    peer::{has_development_mark, hex, parse_x509, thumbprint_sha256},
    tls::{Notices, Revocation, TlsNotice, TlsReason, shown},
};

/// Intermediate certificates that a peer may send.
const INTERMEDIATES_MAX: usize = 4;
/// Bytes of one certificate.
const CERTIFICATE_MAX: usize = 16 * 1024;
/// Bytes of a public key: RSA of 4096 bits just fits. Verifying larger ones is work that a peer
/// could demand before it has proved anything.
const PUBLIC_KEY_MAX: usize = 600;
/// Characters of a name, and of a serial number, that are shown.
const NAME_SHOWN: usize = 256;
const SERIAL_SHOWN: usize = 64;

/// Why a peer is refused: the reason, and words that name what is wrong.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{words}")]
pub(crate) struct Refusal {
    pub(crate) reason: TlsReason,
    /// What is wrong, as a sentence about "it", the certificate.
    pub(crate) words: String,
    /// What the TLS library said, if it was the one that refused.
    original: Option<CertificateError>,
}

impl Refusal {
    pub(crate) fn new(reason: TlsReason, words: impl Into<String>) -> Self {
        Self { reason, words: words.into(), original: None }
    }

    /// The refusal that an error of the TLS library carries.
    pub(crate) fn in_error(error: &OtherError) -> Option<&Self> {
        error.0.downcast_ref()
    }

    /// What the library says about a chain that has to be good for `purpose`.
    fn of(error: &Error, purpose: &str) -> Self {
        let reason = TlsReason::of(error).unwrap_or(TlsReason::Other);
        let original = if let Error::InvalidCertificate(problem) = error {
            // To the peer a namesake of its authority is any authority that is not known here.
            let is_namesake = *problem == CertificateError::BadSignature;
            Some(if is_namesake { CertificateError::UnknownIssuer } else { problem.clone() })
        } else {
            None
        };
        Self { reason, words: words_of(error, purpose), original }
    }

    /// For a peer that cannot be told more than an alert.
    fn alert(&self) -> Error {
        match (&self.original, self.reason) {
            (None, TlsReason::CertificateRevoked) => CertificateError::Revoked.into(),
            // The library would say "unknown authority", which the peer would look into in vain.
            (None, reason) if reason.is_list_trouble() => {
                CertificateError::InvalidOcspResponse.into()
            }
            _ => self.error(),
        }
    }

    /// For the program itself: reason and words can be found in it again.
    pub(crate) fn error(&self) -> Error {
        match &self.original {
            Some(original) => original.clone().into(),
            None => CertificateError::Other(OtherError(Arc::new(self.clone()))).into(),
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library adds variants; its text serves")]
pub(crate) fn words_of(error: &Error, purpose: &str) -> String {
    let Error::InvalidCertificate(problem) = error else { return error.to_string() };
    match problem {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("it expired on {}", shown_unix(*not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("it is valid from {} on, and here it is earlier", shown_unix(*not_before))
        }
        CertificateError::UnknownIssuer => {
            "it comes from no authority that is trusted here, or intermediates are missing".to_owned()
        }
        CertificateError::BadSignature => {
            "it was not signed by the authority that it names, or its own authority has the same name \
             as one that is trusted here"
                .to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            format!("its extended key usage lacks {purpose}")
        }
        CertificateError::Other(inner) => inner.to_string(),
        other => other.to_string(),
    }
}

fn shown_unix(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).map_or_else(|_| String::new(), shown)
}

/// A certificate, as logs name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CertificateSummary {
    /// SHA-256 of it, lower-case hexadecimal.
    pub(crate) thumbprint: String,
    /// Lower-case hexadecimal; empty when it cannot be read.
    pub(crate) serial: String,
    /// The subject in one line; empty when it cannot be read.
    pub(crate) subject: String,
}

impl CertificateSummary {
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        let thumbprint = thumbprint_sha256(certificate);
        let (serial, subject) = match parse_x509(certificate) {
            Ok(parsed) => (hex(parsed.raw_serial()), printable(&parsed.subject().to_string())),
            Err(_) => (String::new(), String::new()),
        };
        Self { thumbprint, serial: serial.chars().take(SERIAL_SHOWN).collect(), subject }
    }
}

/// A name that a stranger chose, as one line of bounded length.
pub(crate) fn printable(name: &str) -> String {
    let shown = name.chars().take(NAME_SHOWN);
    shown.map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

/// What came of looking at a peer's certificates, for the log of the side that accepts: the verifier
/// knows the certificate, the acceptor the address.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) certificate: CertificateSummary,
    pub(crate) refusal: Option<Refusal>,
    /// Whether its revocation cannot be determined, and it is let through.
    pub(crate) is_lenient: bool,
}

tokio::task_local! {
    /// Where the verifier of the handshake that this task is at leaves its note.
    static NOTE: Arc<OnceLock<Note>>;
}

/// Runs a handshake, and says what its verifier noted. Handshakes at the same time have a note each.
pub(crate) async fn noted<F: Future>(handshake: F) -> (F::Output, Option<Note>) {
    let note = Arc::new(OnceLock::new());
    let output = NOTE.scope(Arc::clone(&note), handshake).await;
    let note = note.get().cloned();
    (output, note)
}

fn leave_note(certificate: &CertificateDer<'_>, judged: &Result<Option<Refusal>, Refusal>) {
    // Who is not at a handshake with notes does not ask for them.
    let _ = NOTE.try_with(|note| {
        let _ = note.set(Note {
            certificate: CertificateSummary::of(certificate),
            refusal: judged.as_ref().err().cloned(),
            is_lenient: matches!(judged, Ok(Some(_))),
        });
    });
}

/// The verifier of the library, between checks that bound the work and refuse development, and the
/// look at the revocation lists.
#[derive(Debug)]
pub(crate) struct PeerVerifier<V: ?Sized> {
    pub(crate) inner: Arc<V>,
    pub(crate) allow_development: bool,
    pub(crate) revocation: Arc<Revocation>,
    pub(crate) notices: Arc<Notices>,
}

impl<V: ?Sized> PeerVerifier<V> {
    /// Tells about a peer that is let through although the lists say nothing of it.
    pub(crate) fn tell_of_leniency(&self, own: &CertificateDer<'_>, trouble: Refusal) {
        metrics::counter!(
            "sso_tls_revocation_soft_failures_total",
            "reason" => trouble.reason.as_str()
        )
        .increment(1);
        let summary = CertificateSummary::of(own);
        self.notices.give(&TlsNotice::SoftFailed {
            reason: trouble.reason,
            thumbprint: summary.thumbprint,
            serial: summary.serial,
            subject: summary.subject,
            words: trouble.words,
        });
    }
}

impl PeerVerifier<dyn ClientCertVerifier> {
    /// Judges the chain of a client, its own certificate first.
    ///
    /// `Ok(Some(_))`: its revocation cannot be determined, and the policy lets that pass.
    pub(crate) fn judge(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Option<Refusal>, Refusal> {
        inspect(own, others, self.allow_development)?;
        self.inner
            .verify_client_cert(own, others, now)
            .map_err(|error| Refusal::of(&error, "clientAuth"))?;
        self.revocation.check(own, others, KeyUsage::client_auth(), now)
    }
}

impl ClientCertVerifier for PeerVerifier<dyn ClientCertVerifier> {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let judged = self.judge(end_entity, intermediates, now);
        leave_note(end_entity, &judged);
        match judged {
            Ok(None) => {}
            Ok(Some(trouble)) => self.tell_of_leniency(end_entity, trouble),
            Err(refusal) => return Err(refusal.alert()),
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl PeerVerifier<WebPkiServerVerifier> {
    /// Judges the chain of the server `name`, its own certificate first.
    ///
    /// `Ok(Some(_))`: its revocation cannot be determined, and the policy lets that pass.
    pub(crate) fn judge(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<Option<Refusal>, Refusal> {
        inspect(own, others, self.allow_development)?;
        self.inner
            .verify_server_cert(own, others, name, &[], now)
            .map_err(|error| Refusal::of(&error, "serverAuth"))?;
        self.revocation.check(own, others, KeyUsage::server_auth(), now)
    }
}

impl ServerCertVerifier for PeerVerifier<WebPkiServerVerifier> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judged = self.judge(end_entity, intermediates, server_name, now);
        leave_note(end_entity, &judged);
        match judged {
            Ok(None) => {}
            Ok(Some(trouble)) => self.tell_of_leniency(end_entity, trouble),
            Err(refusal) => return Err(refusal.error()),
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Refuses what is too much work to verify, and certificates of development where none may be.
fn inspect(
    own: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    allow_development: bool,
) -> Result<(), Refusal> {
    if others.len() > INTERMEDIATES_MAX {
        return Err(unusable(format!(
            "the chain has {} intermediate certificates, more than {INTERMEDIATES_MAX}",
            others.len()
        )));
    }
    std::iter::once(own)
        .chain(others)
        .try_for_each(|certificate| inspect_one(certificate, allow_development))
}

fn inspect_one(certificate: &CertificateDer<'_>, allow_development: bool) -> Result<(), Refusal> {
    if certificate.len() > CERTIFICATE_MAX {
        return Err(unusable(format!("a certificate is larger than {CERTIFICATE_MAX} bytes")));
    }
    let parsed =
        parse_x509(certificate).map_err(|error| unusable(format!("it cannot be read: {error}")))?;
    if parsed.public_key().subject_public_key.data.len() > PUBLIC_KEY_MAX {
        return Err(unusable("a public key is larger than RSA with 4096 bits"));
    }
    if has_development_mark(&parsed) && !allow_development {
        let words = "certificates of development are refused here";
        return Err(Refusal::new(TlsReason::DevelopmentCertificate, words));
    }
    Ok(())
}

/// What to say about an empty chain.
pub(crate) fn no_certificate() -> Refusal {
    Refusal::new(TlsReason::NoClientCertificate, "there is no certificate")
}

fn unusable(words: impl Into<String>) -> Refusal {
    Refusal::new(TlsReason::CertificateUnusable, words)
}

/// The time that validity is judged by.
#[derive(Debug)]
pub(crate) struct VerifierTime(pub(crate) Clock);

impl TimeProvider for VerifierTime {
    fn current_time(&self) -> Option<UnixTime> {
        unix_time(&self.0)
    }
}

/// The clock's time as the verifiers take it; `None` before 1970.
pub(crate) fn unix_time(clock: &Clock) -> Option<UnixTime> {
    let seconds = u64::try_from(clock.now().unix_timestamp()).ok()?;
    Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, CertifiedIssuer, CustomExtension, KeyPair, PKCS_RSA_SHA256,
        PublicKeyData, SignatureAlgorithm,
    };

    use super::*;
    use crate::peer::DEVELOPMENT_OID;

    /// A public key of any size that nobody has the private one of.
    struct Large(Vec<u8>);

    impl PublicKeyData for Large {
        fn der_bytes(&self) -> &[u8] {
            &self.0
        }

        fn algorithm(&self) -> &'static SignatureAlgorithm {
            &PKCS_RSA_SHA256
        }
    }

    fn certificate(edit: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        edit(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn with_key(bytes: usize) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(CertificateParams::default(), key).unwrap();
        let large = Large(vec![1; bytes]);
        CertificateParams::default().signed_by(&large, &issuer).unwrap().der().clone()
    }

    fn content(bytes: usize) -> impl FnOnce(&mut CertificateParams) {
        move |params| {
            let extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![0; bytes]);
            params.custom_extensions.push(extension);
        }
    }

    fn why(result: Result<(), Refusal>) -> Option<String> {
        result.err().map(|refusal| refusal.words)
    }

    #[test]
    fn work_that_strangers_can_ask_for_is_bounded() {
        let inspect = |own: &CertificateDer<'_>, others: &[CertificateDer<'_>]| {
            why(super::inspect(own, others, false))
        };
        let good = certificate(|_| {});
        assert_eq!(inspect(&good, &vec![good.clone(); 4]), None);
        let long = inspect(&good, &vec![good.clone(); 100]).unwrap();
        assert!(long.contains("100 intermediate certificates, more than 4"), "{long}");

        assert_eq!(inspect(&with_key(526), &[]), None);
        let large = inspect(&good, &[with_key(1038)]).unwrap();
        assert!(large.contains("public key is larger"), "{large}");

        assert_eq!(inspect(&certificate(content(10_000)), &[]), None);
        let large = inspect(&certificate(content(20_000)), &[]).unwrap();
        assert!(large.contains("larger than 16384 bytes"), "{large}");
    }

    #[test]
    fn development_is_refused_anywhere_in_the_chain() {
        let marked = certificate(|params| {
            let mark = CustomExtension::from_oid_content(DEVELOPMENT_OID, vec![5, 0]);
            params.custom_extensions.push(mark);
        });
        let good = certificate(|_| {});
        for (own, others) in [(&marked, vec![]), (&good, vec![marked.clone()])] {
            let refused = why(inspect(own, &others, false)).unwrap();
            assert!(refused.contains("development"), "{refused}");
            assert_eq!(why(inspect(own, &others, true)), None);
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let bytes = CertificateDer::from(vec![0x30, 3, 2, 1, 1]);
        let refusal = inspect(&bytes, &[], true).unwrap_err();
        assert_eq!(refusal.reason, TlsReason::CertificateUnusable);
    }
}

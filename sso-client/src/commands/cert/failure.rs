//! How errors of certificates end the command.

use sso_client::certificates::CertificateError;

use crate::failure::Failure;

impl From<CertificateError> for Failure {
    fn from(error: CertificateError) -> Self {
        let message = error.to_string();
        let hint = match error {
            CertificateError::Request(_) | CertificateError::Build(_) => {
                return Self::usage(message);
            }
            CertificateError::File { path, source } => {
                return Self::io(path.display().to_string(), source);
            }
            CertificateError::Content { path, what } => {
                return Self::File { file: path.display().to_string(), message: what };
            }
            CertificateError::Randomness => return Self::Unavailable(message),
            CertificateError::PassphraseMissing(_) => {
                return Self::usage_hint(message, "name a private file with it, or use a terminal");
            }
            CertificateError::Exists(_) => "remove it first, or name another place",
            CertificateError::PassphraseWrong(_) => {
                "letters count as they were typed, capitals too; nothing was changed"
            }
            CertificateError::KeyMismatch { .. } => {
                "the key was made together with the request for the certificate: look for that one"
            }
            CertificateError::Expired { .. } => "have it issued again; nobody accepts it any more",
            CertificateError::NotYetValid { .. } => {
                "wait until then, and look whether the clock of this machine is right"
            }
            CertificateError::WrongPurpose { .. } => {
                "ask its authority for one with the purpose that is needed"
            }
            CertificateError::ChainIncomplete { .. } => {
                "name the file with that certificate with --chain, or the right authority with --ca"
            }
            CertificateError::ChainInvalid { .. } => {
                "`sso cert show` tells who issued whom, for what and until when"
            }
            CertificateError::RequestSignature(_) => {
                "it was changed on its way, or made without the private key: ask for it again"
            }
            CertificateError::OtherAuthority { .. } => {
                "name the folder of the authority that issued it with --ca"
            }
            CertificateError::NotFound { .. } => {
                "name the file of the certificate, or look whether it is of another authority"
            }
            CertificateError::Ambiguous { .. } => "give more digits",
        };
        Self::refused(message, hint)
    }
}

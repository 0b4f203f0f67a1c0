//! Payment notifications: what a gateway says about a bill that was paid, signed by it.
//!
//! On the wire a notification is a JSON Web Signature (RFC 7515) with an Ed25519 key of the gateway.
//! It is signed once and repeated byte by byte until somebody acknowledges it, so it has an id and no
//! end of its own: whoever takes it notes the id and takes it once.

use std::{fmt, path::Path};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use sso_core::settings::{secret_file, write_private};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    Stopped,
    bill::{BillKey, PaymentNumber},
};

/// Says in the header what is signed, so that no other signature of the key passes for one.
const TYPE: &str = "payment-notification+jwt";
/// Bytes of an Ed25519 public key.
const PUBLIC_KEY: usize = 32;

/// "This bill was paid."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// The gateway that says so.
    pub iss: String,
    /// The merchant it is said to.
    pub aud: String,
    /// Names this notification: the same at every repetition.
    #[serde(rename = "jti")]
    pub id: Uuid,
    /// When it was signed, in seconds since 1970.
    pub iat: i64,
    /// The key under which the bill was uploaded.
    pub bill: BillKey,
    /// The number it was paid under.
    pub payment_number: PaymentNumber,
    /// What was paid, in the smallest unit of the currency.
    pub amount_minor: u64,
    /// The currency.
    pub currency: String,
    /// When it was paid, RFC 3339.
    pub paid_at: String,
}

/// Why a text is not a notification of this gateway.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotificationError {
    /// Not a signed text, or not with the members of a notification.
    #[error("this is no notification: {0}")]
    Form(String),
    /// Signed by another key, or changed after it was signed.
    #[error("the signature is not one of the gateway's key")]
    Signature,
    /// From somebody else.
    #[error("the notification is not from {0}")]
    Issuer(String),
    /// The public key in the configuration is none.
    #[error(
        "the public key of the gateway: write the 43 characters that `payment-gateway key` shows"
    )]
    PublicKey,
}

/// The gateway's private key.
pub struct SigningKey {
    key: EncodingKey,
    public: String,
}

impl SigningKey {
    /// Makes a key and writes it to the file (PKCS #8, PEM, mode 0600).
    ///
    /// # Errors
    /// The file is there already, or cannot be written.
    pub fn create(path: &Path) -> Result<Self, Stopped> {
        let unspecified = |_| Stopped::refused("a signing key cannot be made");
        let pair = Ed25519KeyPair::generate().map_err(unspecified)?;
        let der = pair.to_pkcs8v1().map_err(unspecified)?;
        let encoded = Zeroizing::new(general_purpose::STANDARD.encode(der.as_ref()));
        let mut pem = Zeroizing::new(String::from("-----BEGIN PRIVATE KEY-----\n"));
        for line in encoded.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        // Expose: into a file that only its owner may read.
        write_private(path, pem.as_bytes(), false)
            .map_err(|error| Stopped::refused(format!("{}: {error}", path.display())))?;
        Self::load(path)
    }

    /// Reads the key from its file.
    ///
    /// # Errors
    /// The file cannot be read, is open to others, or holds no Ed25519 key.
    pub fn load(path: &Path) -> Result<Self, Stopped> {
        let text = secret_file(path).map_err(Stopped::settings)?;
        let wrong = || {
            Stopped::settings(format!(
                "{}: is no Ed25519 key in PKCS #8: make one with `payment-gateway key`",
                path.display()
            ))
        };
        // Expose: it is parsed.
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.expose()).map_err(|_| wrong())?;
        let pair = Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| wrong())?;
        let public = general_purpose::URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        Ok(Self { key: EncodingKey::from_ed_der(der.secret_pkcs8_der()), public })
    }

    /// The public key, 43 characters: what others verify with.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }

    /// The notification as it goes over the wire.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn sign(&self, notification: &Notification) -> Result<String, Stopped> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        jsonwebtoken::encode(&header, notification, &self.key).map_err(Stopped::refused)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// What a host verifies notifications with.
#[derive(Clone)]
pub struct Verifier {
    issuer: String,
    key: DecodingKey,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Takes notifications of this gateway, signed with the private half of this key.
    ///
    /// # Errors
    /// [`NotificationError::PublicKey`]
    pub fn new(issuer: &str, public: &str) -> Result<Self, NotificationError> {
        let bytes = general_purpose::URL_SAFE_NO_PAD
            .decode(public.trim())
            .map_err(|_| NotificationError::PublicKey)?;
        if bytes.len() != PUBLIC_KEY {
            return Err(NotificationError::PublicKey);
        }
        let key = DecodingKey::from_ed_components(public.trim())
            .map_err(|_| NotificationError::PublicKey)?;
        Ok(Self { issuer: issuer.to_owned(), key })
    }

    /// The notification in the text.
    ///
    /// # Errors
    /// See [`NotificationError`].
    pub fn verify(&self, text: &[u8]) -> Result<Notification, NotificationError> {
        let form = |why: &dyn fmt::Display| NotificationError::Form(why.to_string());
        let text = std::str::from_utf8(text).map_err(|error| form(&error))?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_required_spec_claims(&["iss", "aud"]);
        validation.set_issuer(&[&self.issuer]);
        validation.validate_exp = false;
        // One host stands for many merchants: that the bill is the merchant's is looked at with the bill.
        validation.validate_aud = false;
        let decoded = jsonwebtoken::decode::<Notification>(text.trim(), &self.key, &validation)
            .map_err(|error| self.sorted(&error))?;
        if decoded.header.typ.as_deref() != Some(TYPE) {
            return Err(form(&"it was signed as something else"));
        }
        Ok(decoded.claims)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "everything else is a matter of form")]
    fn sorted(&self, error: &jsonwebtoken::errors::Error) -> NotificationError {
        match error.kind() {
            ErrorKind::InvalidSignature => NotificationError::Signature,
            ErrorKind::InvalidIssuer => NotificationError::Issuer(self.issuer.clone()),
            _ => NotificationError::Form(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notification() -> Notification {
        Notification {
            iss: "gateway.example".into(),
            aud: "agency-north".into(),
            id: Uuid::new_v4(),
            iat: 1_900_000_000,
            bill: BillKey::generate(),
            payment_number: PaymentNumber::generate().unwrap(),
            amount_minor: 12_990,
            currency: "EUR".into(),
            paid_at: "2030-03-17T17:46:40Z".into(),
        }
    }

    fn key() -> (tempfile::TempDir, SigningKey) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.key");
        let key = SigningKey::create(&path).unwrap();
        (folder, key)
    }

    #[test]
    fn what_is_signed_is_verified_and_twice_the_same() {
        let (folder, key) = key();
        let verifier = Verifier::new("gateway.example", key.public()).unwrap();
        let told = notification();
        let text = key.sign(&told).unwrap();
        assert_eq!(verifier.verify(text.as_bytes()), Ok(told.clone()));

        let again = SigningKey::load(&folder.path().join("signing.key")).unwrap();
        assert_eq!(again.sign(&told).unwrap(), text);
        assert!(SigningKey::create(&folder.path().join("signing.key")).is_err());
        assert!(!format!("{key:?}").contains("PRIVATE"));
    }

    #[test]
    fn nothing_else_passes() {
        let ((_one, key), (_two, other)) = (key(), key());
        let verifier = Verifier::new("gateway.example", key.public()).unwrap();
        let text = key.sign(&notification()).unwrap();

        let foreign = other.sign(&notification()).unwrap();
        assert_eq!(verifier.verify(foreign.as_bytes()), Err(NotificationError::Signature));
        let elsewhere = Notification { iss: "other".into(), ..notification() };
        let elsewhere = key.sign(&elsewhere).unwrap();
        let issuer = NotificationError::Issuer("gateway.example".into());
        assert_eq!(verifier.verify(elsewhere.as_bytes()), Err(issuer));
        let plain = jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &notification(), &key.key);
        let error = verifier.verify(plain.unwrap().as_bytes()).unwrap_err();
        assert!(matches!(error, NotificationError::Form(_)), "{error}");

        let parts: Vec<_> = text.split('.').collect();
        let changed =
            general_purpose::URL_SAFE_NO_PAD.encode(serde_json::to_vec(&notification()).unwrap());
        let forged = [parts[0], &changed, parts[2]].join(".");
        assert_eq!(verifier.verify(forged.as_bytes()), Err(NotificationError::Signature));
        let none = general_purpose::URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        for unsigned in [[&none, parts[1], ""].join("."), "x".into(), String::new()] {
            let error = verifier.verify(unsigned.as_bytes()).unwrap_err();
            assert!(matches!(error, NotificationError::Form(_)), "{error}");
        }
    }

    #[test]
    fn a_public_key_is_looked_at() {
        for wrong in ["", "abc", "!", &"A".repeat(44)] {
            assert_eq!(Verifier::new("x", wrong).err(), Some(NotificationError::PublicKey));
        }
    }
}

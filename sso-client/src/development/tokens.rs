//! An issuer of user tokens for a throw-away system: a key that whoever owns the folder signs with,
//! and what its servers verify with. Nothing listens; a script that plays a portal signs by itself.

use std::{fmt::Write as _, io, path::Path};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use sso_core::settings::{secret_file, write_private};
use zeroize::Zeroizing;

use super::DevelopmentError;

/// What tokens of the throw-away issuer have in `iss`.
pub const TOKEN_ISSUER: &str = "https://sso-dev.invalid";
/// What they have in `aud`.
pub const TOKEN_AUDIENCE: &str = "sso";
/// The domain of their accounts; the name is in `preferred_username`.
pub const TOKEN_DOMAIN: &str = "WEB";

/// The private key: Ed25519, PKCS #8, PEM.
const KEY: &str = "issuer.key";
/// The public key, as a JSON Web Key Set.
const KEY_SET: &str = "jwks.json";

/// Makes the key and its key set, unless good ones are there.
pub(super) fn prepare(folder: &Path) -> Result<(), DevelopmentError> {
    let (key, key_set) = (folder.join(KEY), folder.join(KEY_SET));
    if are_good(&key, &key_set) {
        return Ok(());
    }
    let failed = |error: aws_lc_rs::error::Unspecified| DevelopmentError::System {
        what: "key for tokens",
        source: io::Error::other(error),
    };
    let pair = Ed25519KeyPair::generate().map_err(failed)?;
    let document = document(&pair);
    // Version 1: openssl does not read the other one. Its 48 bytes are one line.
    let der = pair.to_pkcs8v1().map_err(failed)?;
    let line = Zeroizing::new(STANDARD.encode(der.as_ref()));
    let private = Zeroizing::new(format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        line.as_str()
    ));
    // Expose: into a file that only its owner may read.
    write_private(&key, private.as_bytes(), true).map_err(DevelopmentError::file(&key))?;
    write_private(&key_set, document.as_bytes(), true).map_err(DevelopmentError::file(&key_set))
}

/// Whether nobody else may read the key, and the key set is that of the key.
fn are_good(key: &Path, key_set: &Path) -> bool {
    let pair = secret_file(key).ok().and_then(|text| {
        // Expose: it is parsed.
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.expose()).ok()?;
        Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der()).ok()
    });
    let published = std::fs::read_to_string(key_set).ok();
    matches!((pair, published), (Some(pair), Some(published)) if document(&pair) == published)
}

/// The key set of the key.
fn document(pair: &Ed25519KeyPair) -> String {
    let public = URL_SAFE_NO_PAD.encode(pair.public_key());
    format!(
        "{{\"keys\":[{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"sso-dev\",\"alg\":\"EdDSA\",\
         \"use\":\"sig\",\"x\":\"{public}\"}}]}}\n"
    )
}

/// What the settings of a server say about the issuer; `folder` is relative to them.
pub(super) fn section(folder: &str) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "\n[[identity.token]]\nissuer = \"{TOKEN_ISSUER}\"\naudiences = [\"{TOKEN_AUDIENCE}\"]\n\
         algorithms = [\"EdDSA\"]\njwks_file = \"{folder}/{KEY_SET}\"\ndomain = \"{TOKEN_DOMAIN}\"\n"
    );
    text
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn the_key_is_private_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path()).unwrap();
        let path = folder.path().join(KEY);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let first = fs::read(&path).unwrap();
        let set: serde_json::Value =
            serde_json::from_slice(&fs::read(folder.path().join(KEY_SET)).unwrap()).unwrap();
        let public = set["keys"][0]["x"].as_str().unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(public).unwrap().len(), 32);
        prepare(folder.path()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), first);
    }

    #[test]
    fn a_key_that_others_read_and_a_foreign_key_set_are_not_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let (key, key_set) = (folder.path().join(KEY), folder.path().join(KEY_SET));
        prepare(folder.path()).unwrap();
        let first = fs::read(&key).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        prepare(folder.path()).unwrap();
        let second = fs::read(&key).unwrap();
        assert_ne!(second, first);
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let foreign = fs::read_to_string(&key_set).unwrap().replace("\"x\":\"", "\"x\":\"A");
        fs::write(&key_set, foreign).unwrap();
        prepare(folder.path()).unwrap();
        assert_ne!(fs::read(&key).unwrap(), second);
        assert!(are_good(&key, &key_set));
    }

    #[test]
    fn the_section_is_toml() {
        let table: toml::Table = section("tokens").parse().unwrap();
        assert_eq!(table["identity"]["token"][0]["jwks_file"].as_str(), Some("tokens/jwks.json"));
    }
}

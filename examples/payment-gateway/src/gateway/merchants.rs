//! Merchants: who may upload bills, and how they prove who they are.
//!
//! A merchant shows two things: the client certificate of the system that speaks for it, and
//! credentials of its own (HTTP basic or bearer). Of the credentials only an Argon2id hash is kept.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use argon2::{Algorithm, Argon2, Params, Version};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rand::TryRng as _;
use sha2::{Digest as _, Sha256};
use sso_core::secret::{SecretBytes, SecretText};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::upload::Scheme;

/// Memory in KiB and passes of Argon2id, as OWASP recommends them.
const MEMORY: u32 = 19_456;
const PASSES: u32 = 2;
const SALT: usize = 16;
const HASH: usize = 32;

/// Somebody who lets bills be paid here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merchant {
    /// Its name here; with [`Scheme::Basic`] also the user name.
    pub name: String,
    /// The system that may speak for it: a host name or the common name in the client certificate.
    pub client: String,
    /// How it proves who it is.
    pub scheme: Scheme,
    /// Where its notifications go: `https://HOST:PORT/PATH`.
    pub notify_url: String,
}

/// What is kept of a merchant's password or token.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) salt: Vec<u8>,
    pub(super) hash: Vec<u8>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept(redacted)")
    }
}

impl Kept {
    /// Hashes a password or token under a salt of its own. Takes a moment, as it has to.
    pub(super) fn of(value: &SecretText) -> std::io::Result<Self> {
        let mut salt = vec![0_u8; SALT];
        rand::rngs::SysRng.try_fill_bytes(&mut salt).map_err(std::io::Error::other)?;
        let hash = hash(value, &salt).ok_or_else(|| std::io::Error::other("Argon2id fails"))?;
        Ok(Self { salt, hash: hash.to_vec() })
    }

    fn fits(&self, value: &SecretText) -> bool {
        hash(value, &self.salt).is_some_and(|hash| hash.ct_eq(&self.hash).into())
    }
}

fn hash(value: &SecretText, salt: &[u8]) -> Option<Zeroizing<[u8; HASH]>> {
    let parameters = Params::new(MEMORY, PASSES, 1, Some(HASH)).ok()?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters);
    let mut out = Zeroizing::new([0_u8; HASH]);
    // Expose: it is hashed.
    argon2.hash_password_into(value.expose().as_bytes(), salt, out.as_mut_slice()).ok()?;
    Some(out)
}

/// What stands in the header `Authorization`.
pub(super) enum Shown {
    Basic { user: String, password: SecretText },
    Bearer(SecretText),
}

impl Shown {
    /// `None`: the header is neither basic nor bearer.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.split_once(' ')?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return (!rest.is_empty()).then(|| Self::Bearer(SecretText::new(rest.to_owned())));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = SecretBytes::new(STANDARD.decode(rest).ok()?);
        let text = SecretText::from_utf8(&decoded).ok()?;
        // Expose: taken apart.
        let (user, password) = text.expose().split_once(':')?;
        Some(Self::Basic { user: user.to_owned(), password: SecretText::new(password.to_owned()) })
    }

    /// Whose credentials these are said to be; a token does not say.
    pub(super) fn user(&self) -> Option<&str> {
        match self {
            Self::Basic { user, .. } => Some(user),
            Self::Bearer(_) => None,
        }
    }

    fn scheme(&self) -> Scheme {
        match self {
            Self::Basic { .. } => Scheme::Basic,
            Self::Bearer(_) => Scheme::Bearer,
        }
    }

    fn value(&self) -> &SecretText {
        match self {
            Self::Basic { password, .. } => password,
            Self::Bearer(token) => token,
        }
    }
}

/// Remembers what was verified lately, so that not every bill costs an Argon2id. Holds no value: hashes
/// under a key of this process alone.
pub(super) struct Gate {
    key: [u8; HASH],
    verified: Mutex<HashMap<String, [u8; HASH]>>,
}

impl Gate {
    pub(super) fn new() -> std::io::Result<Self> {
        let mut key = [0_u8; HASH];
        rand::rngs::SysRng.try_fill_bytes(&mut key).map_err(std::io::Error::other)?;
        Ok(Self { key, verified: Mutex::default() })
    }

    /// Whether the value shown was verified to be that of the merchant before.
    pub(super) fn remembers(&self, merchant: &Merchant, kept: &Kept, shown: &Shown) -> bool {
        let mark = self.mark(kept, shown);
        let known = self.remembered().get(&merchant.name).copied();
        shown.scheme() == merchant.scheme && known.is_some_and(|known| known.ct_eq(&mark).into())
    }

    /// Whether the value shown is that of the merchant. Takes as long as an Argon2id, and its memory:
    /// call it where blocking is allowed, and a few times at once only.
    pub(super) fn admits(&self, merchant: &Merchant, kept: &Kept, shown: &Shown) -> bool {
        let fits = shown.scheme() == merchant.scheme && kept.fits(shown.value());
        if fits {
            self.remembered().insert(merchant.name.clone(), self.mark(kept, shown));
        }
        fits
    }

    fn mark(&self, kept: &Kept, shown: &Shown) -> [u8; HASH] {
        let mut digest = Sha256::new_with_prefix(self.key);
        // A new password has a new salt, so what was remembered of the old one is worth nothing.
        digest.update(&kept.salt);
        digest.update(&kept.hash);
        // Expose: it is hashed.
        digest.update(shown.value().expose());
        digest.finalize().into()
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<String, [u8; HASH]>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merchant(scheme: Scheme) -> Merchant {
        Merchant {
            name: "agency-north".into(),
            client: "host.example".into(),
            scheme,
            notify_url: "https://127.0.0.1/".into(),
        }
    }

    fn secret(text: &str) -> SecretText {
        SecretText::new(text.to_owned())
    }

    #[test]
    fn headers_are_read() {
        let Some(Shown::Basic { user, password }) = Shown::parse("basic YW5uOmE6Yg==") else {
            panic!("no basic credentials");
        };
        assert_eq!((user.as_str(), password), ("ann", secret("a:b")));
        let bearer = Shown::parse("Bearer token-1").unwrap();
        assert_eq!((bearer.user(), bearer.value()), (None, &secret("token-1")));
        for none in ["", "Basic", "Basic !", "Basic YW5u", "Digest x", "Bearer ", "Basic /w=="] {
            assert!(Shown::parse(none).is_none(), "{none}");
        }
    }

    #[test]
    fn only_the_right_value_by_the_right_scheme_is_admitted() {
        let gate = Gate::new().unwrap();
        let kept = Kept::of(&secret("right")).unwrap();
        let bearer = |value: &str| Shown::Bearer(secret(value));
        let basic = Shown::Basic { user: "agency-north".into(), password: secret("right") };
        assert!(!gate.remembers(&merchant(Scheme::Bearer), &kept, &bearer("right")));
        for _ in 0..2 {
            assert!(gate.admits(&merchant(Scheme::Bearer), &kept, &bearer("right")));
            assert!(!gate.admits(&merchant(Scheme::Bearer), &kept, &bearer("wrong")));
            assert!(!gate.admits(&merchant(Scheme::Bearer), &kept, &basic));
        }
        assert!(gate.admits(&merchant(Scheme::Basic), &kept, &basic));

        assert!(gate.remembers(&merchant(Scheme::Basic), &kept, &basic));
        assert!(!gate.remembers(&merchant(Scheme::Bearer), &kept, &basic));
        assert!(!gate.remembers(&merchant(Scheme::Basic), &kept, &bearer("wrong")));

        let replaced = Kept::of(&secret("new")).unwrap();
        assert!(!gate.remembers(&merchant(Scheme::Bearer), &replaced, &bearer("right")));
        assert!(!gate.admits(&merchant(Scheme::Bearer), &replaced, &bearer("right")));
        assert!(gate.admits(&merchant(Scheme::Bearer), &replaced, &bearer("new")));
        assert!(!format!("{kept:?}").contains("right"));
        assert_ne!(Kept::of(&secret("right")).unwrap(), kept, "a salt of its own");
    }
}

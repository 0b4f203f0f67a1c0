//! The protector with a PKCS#11 token: a hardware security module, a smart card, SoftHSM.
//!
//! An AES-256 key is made inside the token and never leaves it; it wraps the keystore key with
//! AES-GCM. Whoever starts the program needs the token and the PIN of its user. Tokens lock
//! themselves after a few wrong PINs, so a PIN is tried once, and not at all when the token says that
//! one try is left.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11 as Module},
    error::{Error as TokenError, RvError},
    mechanism::{Mechanism, aead::GcmParams},
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    slot::{Slot, TokenInfo},
    types::AuthPin,
};
use rand::{TryRng as _, rngs::SysRng};
use serde::{Deserialize, Serialize};
use sso_core::{
    derive::Fingerprint,
    memory::{KeyError, LockedKey},
    secret::SecretText,
};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    Kind, PassphraseSource, Protector, ProtectorError, Stanza,
    encoding::{self, Base64},
    prompt::{Asker, Question},
    require_own,
};

const KEY_BYTES: u64 = 32;
const KEY_ID_BYTES: usize = 16;
const IV_BYTES: usize = 12;
const TAG_BITS: u64 = 128;
const LOCKED: &str = "its PIN is locked after too many wrong ones: set a new one with the security \
                      officer's PIN and the tool of its maker";
const QUESTION: Question = Question {
    what: "the PIN of the token",
    instead: "pin_file or credential in [[protector]] of the settings",
};

/// The modules that were loaded. Each may be initialised once in a process, and who is logged in to a
/// token counts for the whole process: whoever works with a token holds this lock.
static MODULES: Mutex<BTreeMap<PathBuf, Module>> = Mutex::new(BTreeMap::new());

/// The keystore key, wrapped under a key in a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11Stanza {
    keystore: Uuid,
    /// The label of the token.
    token: String,
    /// The label of the key in it.
    key: String,
    /// The id of that key: labels may occur twice.
    key_id: Base64,
    iv: Base64,
    wrapped: Base64,
    /// The fingerprint of the keystore key.
    #[serde(with = "encoding::fingerprint")]
    fingerprint: Fingerprint,
}

impl Pkcs11Stanza {
    pub(crate) fn label(&self) -> String {
        format!("{}/{}", self.token, self.key)
    }
}

/// Which key of which token, reached through which library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKey {
    /// The library of the token's maker.
    pub module: PathBuf,
    /// The label of the token.
    pub token: String,
    /// The label of the wrapping key.
    pub key: String,
}

/// The protector with a PKCS#11 token.
#[derive(Debug)]
pub struct Pkcs11 {
    at: TokenKey,
    pin: PassphraseSource,
    asker: Asker,
    /// The PIN that somebody entered and the token took.
    known: RefCell<Option<SecretText>>,
    /// Set by a wrong PIN: it is not tried again.
    refused: Cell<bool>,
}

impl Pkcs11 {
    /// The protector with the key `at` a token whose PIN comes from `pin`.
    ///
    /// # Errors
    /// When the library or the token is missing.
    pub fn open(at: TokenKey, pin: PassphraseSource) -> Result<Self, ProtectorError> {
        let (known, refused) = (RefCell::new(None), Cell::new(false));
        let protector = Self { at, pin, asker: Asker::Terminal, known, refused };
        let mut modules = modules();
        let module =
            load(&mut modules, &protector.at.module).map_err(|it| protector.trouble(it))?;
        protector.slot(&module)?;
        Ok(protector)
    }

    /// Does `work` logged in as the user of the token, and logs out again.
    fn logged_in<T>(
        &self,
        work: impl FnOnce(&Session) -> Result<T, ProtectorError>,
    ) -> Result<T, ProtectorError> {
        if self.refused.get() {
            return Err(self.wrong_pin());
        }
        let mut modules = modules();
        let module = load(&mut modules, &self.at.module).map_err(|it| self.trouble(it))?;
        let (slot, info) = self.slot(&module)?;
        self.require_tries(&info)?;
        let pin = self.pin(&info)?;
        let session = module.open_rw_session(slot).map_err(|error| self.failed(&error))?;
        self.login(&session, pin.as_ref())?;
        let done = work(&session);
        if let Err(error) = session.logout() {
            // Closing the only session of the process logs out as well.
            tracing::debug!(%error, token = self.at.token, "no logout");
        }
        if self.pin == PassphraseSource::Prompt && done.is_ok() {
            *self.known.borrow_mut() = pin;
        }
        done
    }

    /// The slot with the token of that label.
    fn slot(&self, module: &Module) -> Result<(Slot, TokenInfo), ProtectorError> {
        let slots = module.get_slots_with_token().map_err(|error| self.failed(&error))?;
        let all: Vec<_> = slots
            .into_iter()
            .filter_map(|slot| Some((slot, module.get_token_info(slot).ok()?)))
            .filter(|(_, info)| info.token_initialized())
            .collect();
        let labels: Vec<String> = all.iter().map(|(_, info)| info.label().to_owned()).collect();
        let mut own = all.into_iter().filter(|(_, info)| info.label() == self.at.token);
        match (own.next(), own.next()) {
            (Some(found), None) => Ok(found),
            (Some(_), Some(_)) => {
                Err(self.trouble("two tokens have this label: take one out, or name them apart"))
            }
            (None, _) => Err(self.trouble(format!(
                "it is not there. Is it plugged in, and may this user reach it? {} shows the \
                 tokens: {}",
                self.at.module.display(),
                if labels.is_empty() { "none".to_owned() } else { labels.join(", ") },
            ))),
        }
    }

    /// A wrong PIN must never cost the last try.
    fn require_tries(&self, info: &TokenInfo) -> Result<(), ProtectorError> {
        if info.user_pin_locked() {
            return Err(self.trouble(LOCKED));
        }
        if info.user_pin_final_try() {
            let problem = "one try of its PIN is left and this program does not take it: log in once \
                           with the tool of its maker and the right PIN, which gives the tries back";
            return Err(self.trouble(problem));
        }
        if info.user_pin_count_low() {
            tracing::warn!(token = self.at.token, "a wrong PIN was tried on the token before");
        }
        Ok(())
    }

    /// The PIN; `None` for a token with a pad of its own.
    fn pin(&self, info: &TokenInfo) -> Result<Option<SecretText>, ProtectorError> {
        if let Some(known) = &*self.known.borrow() {
            return Ok(Some(known.clone()));
        }
        match self.pin.read(QUESTION.what)? {
            Some(pin) => Ok(Some(pin)),
            None if info.protected_authentication_path() => Ok(None),
            None => Ok(Some(self.asker.ask(QUESTION)?)),
        }
    }

    fn login(&self, session: &Session, pin: Option<&SecretText>) -> Result<(), ProtectorError> {
        // Expose: into the text that the library takes, which wipes itself.
        let pin = pin.map(|pin| AuthPin::from(pin.expose().to_owned()));
        let Err(error) = session.login(UserType::User, pin.as_ref()) else { return Ok(()) };
        let wrong = [RvError::PinIncorrect, RvError::PinInvalid, RvError::PinLenRange];
        let TokenError::Pkcs11(code, _) = &error else { return Err(self.failed(&error)) };
        if wrong.contains(code) {
            self.refused.set(true);
            return Err(self.wrong_pin());
        }
        if *code == RvError::PinLocked {
            return Err(self.trouble(LOCKED));
        }
        Err(self.failed(&error))
    }

    /// The wrapping key of this label, and its id.
    fn own_key(&self, session: &Session) -> Result<(ObjectHandle, Vec<u8>), ProtectorError> {
        let key = &self.at.key;
        let mut found = self.find(session, Attribute::Label(key.clone().into_bytes()))?;
        let (found, more) = (found.pop(), found.len());
        let found = match found {
            Some(_) if more > 0 => {
                return Err(self.trouble(format!(
                    "{} keys have the label {key}: name another one in [[protector]], or delete \
                     those that no keystore uses",
                    more + 1
                )));
            }
            Some(found) => found,
            None => return self.make_key(session),
        };
        let wanted = [AttributeType::Id, AttributeType::Sensitive, AttributeType::Extractable];
        let attributes =
            session.get_attributes(found, &wanted).map_err(|error| self.failed(&error))?;
        let stays = attributes.contains(&Attribute::Sensitive(true))
            && attributes.contains(&Attribute::Extractable(false));
        if !stays {
            return Err(self.trouble(format!(
                "the key {key} can be taken out of the token. Name another label in [[protector]]; a \
                 key that cannot is then made"
            )));
        }
        let id = attributes.into_iter().find_map(|attribute| {
            let Attribute::Id(id) = attribute else { return None };
            (!id.is_empty()).then_some(id)
        });
        let no_id = || self.trouble(format!("the key {key} has no id (CKA_ID): give it one"));
        Ok((found, id.ok_or_else(no_id)?))
    }

    fn make_key(&self, session: &Session) -> Result<(ObjectHandle, Vec<u8>), ProtectorError> {
        let mut id = vec![0; KEY_ID_BYTES];
        SysRng.try_fill_bytes(&mut id).map_err(|error| KeyError::Random(error.to_string()))?;
        let template = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::ValueLen(KEY_BYTES.into()),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
            Attribute::Label(self.at.key.clone().into_bytes()),
            Attribute::Id(id.clone()),
        ];
        let made = session
            .generate_key(&Mechanism::AesKeyGen, &template)
            .map_err(|error| self.failed(&error))?;
        tracing::info!(token = self.at.token, key = self.at.key, "a key was made in the token");
        Ok((made, id))
    }

    fn find(
        &self,
        session: &Session,
        name: Attribute,
    ) -> Result<Vec<ObjectHandle>, ProtectorError> {
        let template = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::Token(true),
            name,
        ];
        session.find_objects(&template).map_err(|error| self.failed(&error))
    }

    fn decrypt(
        &self,
        session: &Session,
        stanza: &Pkcs11Stanza,
    ) -> Result<Zeroizing<Vec<u8>>, ProtectorError> {
        let not_authentic =
            || ProtectorError::NotAuthentic { kind: Kind::Pkcs11, keystore: stanza.keystore };
        let found = self.find(session, Attribute::Id(stanza.key_id.0.clone()))?;
        let missing = || {
            self.trouble(format!(
                "it has no key {} with the id of the stanza: it was deleted, or this is another token \
                 of the same label. Unlock with another protector",
                stanza.key
            ))
        };
        let key = found.first().copied().ok_or_else(missing)?;
        let mut iv = stanza.iv.0.clone();
        let associated = associated_data(stanza.keystore);
        let parameters = GcmParams::new(&mut iv, &associated, TAG_BITS.into());
        let parameters = parameters.map_err(|_| not_authentic())?;
        // What libraries say to a wrong tag differs, down to CKR_GENERAL_ERROR.
        session
            .decrypt(&Mechanism::AesGcm(parameters), key, &stanza.wrapped.0)
            .map(Zeroizing::new)
            .map_err(|error| {
                tracing::warn!(%error, token = self.at.token, "the token unwraps nothing");
                not_authentic()
            })
    }

    fn wrong_pin(&self) -> ProtectorError {
        ProtectorError::WrongPin { token: self.at.token.clone() }
    }

    fn failed(&self, error: &TokenError) -> ProtectorError {
        self.trouble(format!("{error}; look at the log of the token and of its library"))
    }

    fn trouble(&self, problem: impl Into<String>) -> ProtectorError {
        ProtectorError::Token { token: self.at.token.clone(), problem: problem.into() }
    }
}

impl Protector for Pkcs11 {
    fn kind(&self) -> Kind {
        Kind::Pkcs11
    }

    fn label(&self) -> String {
        format!("{}/{}", self.at.token, self.at.key)
    }

    fn covers(&self, stanza: &Stanza) -> bool {
        matches!(stanza, Stanza::Pkcs11(stanza)
            if stanza.token == self.at.token && stanza.key == self.at.key)
    }

    fn wrap(&self, keystore: Uuid, key: &LockedKey) -> Result<Stanza, ProtectorError> {
        self.logged_in(|session| {
            let (wrapping, key_id) = self.own_key(session)?;
            let mut iv = [0; IV_BYTES];
            SysRng.try_fill_bytes(&mut iv).map_err(|error| KeyError::Random(error.to_string()))?;
            let associated = associated_data(keystore);
            let parameters = GcmParams::new(&mut iv, &associated, TAG_BITS.into());
            let mechanism = Mechanism::AesGcm(parameters.map_err(|error| self.failed(&error))?);
            // Expose: into the token, which wraps it.
            let wrapped = session
                .encrypt(&mechanism, wrapping, key.expose())
                .map_err(|error| self.failed(&error))?;
            Ok(Stanza::Pkcs11(Pkcs11Stanza {
                keystore,
                token: self.at.token.clone(),
                key: self.at.key.clone(),
                key_id: Base64(key_id),
                // After the call: some tokens choose their own.
                iv: Base64(iv.to_vec()),
                wrapped: Base64(wrapped),
                fingerprint: Fingerprint::of(key),
            }))
        })
    }

    fn unwrap(&self, keystore: Uuid, stanza: &Stanza) -> Result<Option<LockedKey>, ProtectorError> {
        if !self.covers(stanza) {
            return Ok(None);
        }
        let Stanza::Pkcs11(stanza) = stanza else { return Ok(None) };
        require_own("the pkcs11 stanza", stanza.keystore, keystore)?;
        if stanza.iv.0.len() != IV_BYTES {
            let what = "its initialisation vector has not the right length".to_owned();
            return Err(ProtectorError::Damaged { kind: Kind::Pkcs11, what });
        }
        let bytes = self.logged_in(|session| self.decrypt(session, stanza))?;
        let key = LockedKey::from_bytes(&bytes)?;
        if Fingerprint::of(&key) != stanza.fingerprint {
            return Err(ProtectorError::NotAuthentic { kind: Kind::Pkcs11, keystore });
        }
        Ok(Some(key))
    }
}

/// The kind and the keystore: what wraps for one keystore unwraps for no other.
fn associated_data(keystore: Uuid) -> Vec<u8> {
    [b"pkcs11 stanza".as_slice(), keystore.as_bytes()].concat()
}

fn modules() -> MutexGuard<'static, BTreeMap<PathBuf, Module>> {
    // Nothing is half done in the map when a holder panics.
    MODULES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn load(modules: &mut BTreeMap<PathBuf, Module>, path: &Path) -> Result<Module, String> {
    if let Some(module) = modules.get(path) {
        return Ok(module.clone());
    }
    if !path.is_file() {
        return Err(format!(
            "there is no library {}: install the software of its maker, or correct `module` in \
             [[protector]]",
            path.display()
        ));
    }
    let failed = |error: TokenError| format!("the library {} fails: {error}", path.display());
    let module = Module::new(path).map_err(failed)?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(TokenError::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(failed(error)),
    }
    modules.insert(path.to_owned(), module.clone());
    Ok(module)
}

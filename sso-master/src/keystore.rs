//! The keystore: the only copy of the master secret on disk, every generation wrapped.
//!
//! It is a JSON file of mode 0600. A random *keystore key* wraps each generation and seals the
//! header, so that nobody without it can change a state, a number or a date. The keystore key itself
//! is not in the file: each *stanza* says how one [protector](crate::protector) gives it back.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sso_core::{
    derive::Fingerprint,
    key_ring::{Generation, KeyRing, KeyRingError},
    memory::{KeyError, LockedKey},
    seal::SealError,
    wrapping::WrappingKey,
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    TOOL,
    encoding::{self, Base64, canonical, checksum},
    file::{self, FileError, FormatError},
    protector::Stanza,
};

const FORMAT: &str = "sso-keystore";
const VERSION: u64 = 1;
/// Stanzas of a keystore at most: each may cost a whole stretching of a passphrase.
const STANZAS_MAX: usize = 8;

/// Why a keystore cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeystoreError {
    /// The file cannot be used, whatever is in it.
    #[error("keystore {error}{advice}", error = .0, advice = way_out(.0))]
    File(#[from] FileError),
    /// The contents cannot be used.
    #[error(
        "keystore: {0}; put back a copy of the file, or restore the master secret from its backup"
    )]
    Format(#[from] FormatError),
    /// The file is no keystore, or a damaged one.
    #[error(
        "keystore {}: {source}; put back a copy of the file, or restore the master secret from its \
         backup",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: FormatError,
    },
    /// The keystore key belongs to another keystore.
    #[error(
        "keystore {keystore}: the protector gave the key of another keystore; check that settings, \
         keystore and protector belong together"
    )]
    Foreign {
        /// The keystore at hand.
        keystore: Uuid,
    },
    /// The keys make no key ring.
    #[error("keystore: {0}")]
    KeyRing(#[from] KeyRingError),
    /// A key cannot be held in memory.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A key cannot be wrapped.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Where a generation is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Generated, backed up, not yet handed out.
    Prepared,
    /// Every live server has it; nothing is sealed under it yet.
    Distributed,
    /// New values are sealed under it.
    Active,
    /// Values sealed under it are being sealed again.
    Draining,
    /// No value is sealed under it.
    Retired,
    /// Its key is gone.
    Destroyed,
}

/// What the keystore says about one generation, without its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerationEntry {
    /// Its number.
    #[serde(with = "encoding::generation")]
    pub generation: Generation,
    /// Where it is in its life.
    pub state: State,
    /// When it was generated.
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
    /// The fingerprint of its key.
    #[serde(with = "encoding::fingerprint")]
    pub fingerprint: Fingerprint,
    /// The wrapped key; absent exactly when the key was destroyed.
    wrapped: Option<Base64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    keystore: Uuid,
    change: u64,
    #[serde(with = "time::serde::rfc3339")]
    created: OffsetDateTime,
    tool: String,
    generations: Vec<GenerationEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    version: u64,
    header: Header,
    stanzas: Vec<Stanza>,
    seal: Base64,
    checksum: String,
}

/// A keystore as it is in its file: its keys are still wrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keystore {
    header: Header,
    stanzas: Vec<Stanza>,
    seal: Base64,
}

impl Keystore {
    /// A new keystore with the id `id`, whose first generation `first` is active.
    ///
    /// # Errors
    /// When the operating system has no random bytes.
    pub fn create(
        id: Uuid,
        first: &LockedKey,
        keystore_key: &LockedKey,
        stanzas: Vec<Stanza>,
        now: OffsetDateTime,
    ) -> Result<Self, KeystoreError> {
        let now = whole_seconds(now);
        let wrapping = WrappingKey::new(keystore_key);
        let (generation, fingerprint) = (Generation::FIRST, Fingerprint::of(first));
        // Expose: into the wrapping, for the file.
        let wrapped =
            bound(id, generation, fingerprint, |context| wrapping.wrap(context, first.expose()))?;
        let entry = GenerationEntry {
            generation,
            state: State::Active,
            created: now,
            fingerprint,
            wrapped: Some(Base64(wrapped)),
        };
        let header = Header {
            keystore: id,
            change: 1,
            created: now,
            tool: TOOL.to_owned(),
            generations: vec![entry],
        };
        let seal = Base64(wrapping.wrap(&[b"header", &canonical(&header)], b"")?);
        Ok(Self { header, stanzas, seal })
    }

    /// The keystore in the file `path`.
    ///
    /// # Errors
    /// When other users may read the file, or it is no whole keystore of a known version.
    pub fn read(path: &Path) -> Result<Self, KeystoreError> {
        Self::parse(&file::read(path, true)?)
            .map_err(|source| KeystoreError::Damaged { path: path.to_owned(), source })
    }

    /// Makes the file `path` with mode 0600, whole or not at all, never over another.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn write_new(&self, path: &Path) -> Result<(), KeystoreError> {
        Ok(file::create(path, &self.to_text())?)
    }

    /// The keystore that `content` spells.
    ///
    /// # Errors
    /// When it is something else, of another version, or damaged.
    pub fn parse(content: &[u8]) -> Result<Self, FormatError> {
        let document: Document = file::parse(content, FORMAT, VERSION)?;
        let Document { header, stanzas, seal, checksum, .. } = document;
        let keystore = Self { header, stanzas, seal };
        if checksum != keystore.checksum() {
            return Err(FormatError::damaged("its checksum does not match its contents"));
        }
        if keystore.stanzas.len() > STANZAS_MAX {
            let found = keystore.stanzas.len();
            let what = format!("it has {found} stanzas, more than {STANZAS_MAX}");
            return Err(FormatError::damaged(what));
        }
        keystore.header.check()?;
        Ok(keystore)
    }

    /// The text of the file.
    #[must_use]
    pub fn to_text(&self) -> String {
        let document = Document {
            format: FORMAT.to_owned(),
            version: VERSION,
            header: self.header.clone(),
            stanzas: self.stanzas.clone(),
            seal: self.seal.clone(),
            checksum: self.checksum(),
        };
        // Nothing in a document can fail to be spelled.
        let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The id: names the system whose keys these are.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.header.keystore
    }

    /// Counts the changes of the key ring, from 1.
    #[must_use]
    pub fn change(&self) -> u64 {
        self.header.change
    }

    /// What is known of each generation.
    #[must_use]
    pub fn generations(&self) -> &[GenerationEntry] {
        &self.header.generations
    }

    /// How protectors give the keystore key back.
    #[must_use]
    pub fn stanzas(&self) -> &[Stanza] {
        &self.stanzas
    }

    /// The keys of all generations that were not destroyed.
    ///
    /// # Errors
    /// When `keystore_key` is that of another keystore, or the header or a key was changed.
    pub fn open(&self, keystore_key: &LockedKey) -> Result<KeyRing, KeystoreError> {
        let wrapping = WrappingKey::new(keystore_key);
        let sealed = wrapping.unwrap(&[b"header", &canonical(&self.header)], &self.seal.0);
        if sealed.is_err() {
            // A header that was changed, or another key: the wrapped generations tell which.
            let own =
                self.header.generations.iter().any(|entry| self.key(&wrapping, entry).is_ok());
            return Err(if own {
                FormatError::damaged("its header was changed").into()
            } else {
                KeystoreError::Foreign { keystore: self.id() }
            });
        }
        let kept = self.header.generations.iter().filter(|entry| entry.wrapped.is_some());
        let keys = kept
            .map(|entry| Ok((entry.generation, self.key(&wrapping, entry)?)))
            .collect::<Result<Vec<_>, KeystoreError>>()?;
        Ok(KeyRing::new(keys, self.header.active()?)?)
    }

    fn key(
        &self,
        wrapping: &WrappingKey,
        entry: &GenerationEntry,
    ) -> Result<LockedKey, KeystoreError> {
        let GenerationEntry { generation, fingerprint, wrapped, .. } = entry;
        let damaged = || FormatError::damaged(format!("the key of generation {generation}"));
        let wrapped = wrapped.as_ref().ok_or_else(damaged)?;
        let key = bound(self.id(), *generation, *fingerprint, |context| {
            wrapping.unwrap(context, &wrapped.0)
        })
        .map_err(|_| damaged())?;
        // Expose: from the wrapping into locked memory.
        let key = LockedKey::from_bytes(key.expose())?;
        if Fingerprint::of(&key) != *fingerprint {
            return Err(damaged().into());
        }
        Ok(key)
    }

    fn checksum(&self) -> String {
        checksum(&(FORMAT, VERSION, &self.header, &self.stanzas, &self.seal))
    }
}

impl Header {
    /// Exactly one generation is active, none occurs twice, and exactly the destroyed lack a key.
    fn check(&self) -> Result<(), FormatError> {
        self.active()?;
        for (at, entry) in self.generations.iter().enumerate() {
            let generation = entry.generation;
            let earlier = self.generations.iter().take(at);
            if earlier.map(|entry| entry.generation).any(|earlier| earlier >= generation) {
                return Err(FormatError::damaged("its generations are not in ascending order"));
            }
            if entry.wrapped.is_none() != (entry.state == State::Destroyed) {
                let what = format!("state and key of generation {generation} do not fit");
                return Err(FormatError::damaged(what));
            }
        }
        Ok(())
    }

    fn active(&self) -> Result<Generation, FormatError> {
        let mut active = self.generations.iter().filter(|entry| entry.state == State::Active);
        match (active.next(), active.next()) {
            (Some(entry), None) => Ok(entry.generation),
            _ => Err(FormatError::damaged("not exactly one generation is active")),
        }
    }
}

/// Calls `use_it` with what a wrapped generation is bound to.
fn bound<R>(
    id: Uuid,
    generation: Generation,
    fingerprint: Fingerprint,
    use_it: impl FnOnce(&[&[u8]]) -> R,
) -> R {
    let number = generation.number().to_be_bytes();
    use_it(&[b"generation", id.as_bytes(), &number, fingerprint.as_bytes()])
}

fn way_out(error: &FileError) -> &'static str {
    match error {
        FileError::Missing(_) => {
            "; make it with `sso-master init`, or correct `keystore` in the settings"
        }
        FileError::Read { .. }
        | FileError::Write { .. }
        | FileError::Exists(_)
        | FileError::Lax { .. } => "",
    }
}

/// Dates in files are for people; fractions of a second only make them longer.
pub(crate) fn whole_seconds(time: OffsetDateTime) -> OffsetDateTime {
    time.replace_nanosecond(0).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;
    use crate::protector::{RingStanza, Stanza};

    fn key(byte: u8) -> LockedKey {
        LockedKey::from_bytes(&[byte; 32]).unwrap()
    }

    fn keystore() -> Keystore {
        let id = Uuid::from_u128(7);
        let stanza =
            Stanza::Keyutils(RingStanza { keystore: id, fingerprint: Fingerprint::of(&key(2)) });
        let now = datetime!(2030-01-02 03:04:05.678 UTC);
        Keystore::create(id, &key(1), &key(2), vec![stanza], now).unwrap()
    }

    /// The text with `from` replaced by `to` and the checksum made right again.
    fn forged(from: &str, to: &str) -> Keystore {
        let text = keystore().to_text();
        assert!(text.contains(from), "{text}");
        let mut document: Document = serde_json::from_str(&text.replace(from, to)).unwrap();
        let parts = (FORMAT, VERSION, &document.header, &document.stanzas, &document.seal);
        document.checksum = checksum(&parts);
        Keystore::parse(&serde_json::to_vec(&document).unwrap()).unwrap()
    }

    #[test]
    fn what_is_created_is_read_again_and_opens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keystore.json");
        keystore().write_new(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);

        let read = Keystore::read(&path).unwrap();
        assert_eq!((read.id(), read.change()), (Uuid::from_u128(7), 1));
        assert_eq!(read.generations()[0].state, State::Active);
        assert_eq!(read.generations()[0].created, datetime!(2030-01-02 03:04:05 UTC));
        let ring = read.open(&key(2)).unwrap();
        assert_eq!(ring.active(), Generation::FIRST);
        assert_eq!(ring.key(Generation::FIRST), Some(&key(1)));

        let error = read.write_new(&path).unwrap_err().to_string();
        assert!(error.contains("exists already"), "{error}");
    }

    #[test]
    fn too_many_stanzas_are_refused() {
        let mut keystore = keystore();
        let stanza = keystore.stanzas[0].clone();
        keystore.stanzas = vec![stanza.clone(); STANZAS_MAX];
        assert!(Keystore::parse(keystore.to_text().as_bytes()).is_ok());
        keystore.stanzas.push(stanza);
        let error = Keystore::parse(keystore.to_text().as_bytes()).unwrap_err().to_string();
        assert!(error.contains("9 stanzas"), "{error}");
    }

    #[test]
    fn the_file_shows_neither_key() {
        let text = keystore().to_text();
        for key in [key(1), key(2)] {
            let spelled = serde_json::to_string(&Base64(key.expose().to_vec())).unwrap();
            assert!(!text.contains(spelled.trim_matches('"').trim_end_matches('=')));
        }
    }

    #[test]
    fn a_file_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keystore.json");
        keystore().write_new(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = Keystore::read(&path).unwrap_err().to_string();
        assert!(error.contains("0640") && error.contains("chmod 600"), "{error}");
        let missing = Keystore::read(&folder.path().join("other")).unwrap_err();
        assert!(matches!(missing, KeystoreError::File(FileError::Missing(_))), "{missing}");
        assert!(missing.to_string().contains("sso-master init"), "{missing}");
    }

    #[test]
    fn the_key_of_another_keystore_is_named_as_such() {
        let error = keystore().open(&key(3)).unwrap_err();
        assert!(matches!(error, KeystoreError::Foreign { .. }), "{error}");
    }

    #[test]
    fn every_change_of_the_header_is_damage() {
        let changes = [
            ("\"change\": 1", "\"change\": 2"),
            ("2030-01-02", "2031-01-02"),
            ("sso-master ", "sso-mastex "),
            ("\"generation\": 1", "\"generation\": 2"),
        ];
        for (from, to) in changes {
            let error = forged(from, to).open(&key(2)).unwrap_err();
            let known = matches!(
                error,
                KeystoreError::Format(FormatError::Damaged(_)) | KeystoreError::Foreign { .. }
            );
            assert!(known, "{from}: {error}");
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_damage() {
        let text = keystore().to_text().into_bytes();
        // The last byte is the newline after the document.
        for length in 0..text.len() - 1 {
            let error = Keystore::parse(&text[..length]).unwrap_err();
            assert!(matches!(error, FormatError::Damaged(_) | FormatError::Other(_)), "{error}");
        }
        let whole = without_space(&text);
        let original = Keystore::parse(&whole).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            // Another spelling of the same is no change: a date may have any sign for its `T`.
            let same = |parsed: Keystore| parsed == original;
            assert!(Keystore::parse(&changed).map_or(true, same), "{at}");
        }
    }

    /// Every byte means something here.
    fn without_space(text: &[u8]) -> Vec<u8> {
        let document: Document = serde_json::from_slice(text).unwrap();
        serde_json::to_vec(&document).unwrap()
    }

    #[test]
    fn files_of_other_kinds_and_versions_are_named() {
        assert_eq!(Keystore::parse(b"").unwrap_err(), FormatError::Other(FORMAT));
        assert_eq!(Keystore::parse(b"[tls]\n").unwrap_err(), FormatError::Other(FORMAT));
        let backup = br#"{"format": "sso-backup", "version": 1}"#;
        assert_eq!(Keystore::parse(backup).unwrap_err(), FormatError::Other(FORMAT));
        let newer = keystore().to_text().replace("\"version\": 1", "\"version\": 2");
        assert_eq!(
            Keystore::parse(newer.as_bytes()).unwrap_err(),
            FormatError::Version { found: 2, known: 1 }
        );
        let unknown = keystore().to_text().replacen('{', "{\"more\": 1,", 1);
        let error = Keystore::parse(unknown.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("unknown field"), "{error}");
    }

    #[test]
    fn headers_that_make_no_sense_are_refused() {
        let sensible = keystore().header;
        let entry = sensible.generations[0].clone();
        let with = |generations| Header { generations, ..sensible.clone() };
        let retired = GenerationEntry { state: State::Retired, ..entry.clone() };
        let destroyed = GenerationEntry { state: State::Destroyed, ..entry.clone() };
        for (headers, why) in [
            (vec![], "not exactly one"),
            (vec![retired.clone()], "not exactly one"),
            (vec![entry.clone(), entry.clone()], "not exactly one"),
            (vec![entry.clone(), retired], "ascending"),
            (vec![destroyed, entry], "do not fit"),
        ] {
            let error = with(headers).check().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Keystore::parse(&bytes).is_err());
        }
    }
}

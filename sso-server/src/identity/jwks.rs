//! The keys that an issuer signs its tokens with: a JSON Web Key Set from a file, or fetched.
//!
//! Where the keys are is said by the settings alone; nothing in a token leads anywhere. Each key is
//! good for one algorithm, which the key says and never the token.

use std::{
    collections::HashSet,
    fmt, fs, io,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use reqwest::{Client, Url, redirect};
use serde::Deserialize;
use sso_core::{
    clock::Clock,
    tls::{Application, TlsReloader, TrustSettings, web_client_without_trust},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::announce;

/// Bytes of the largest key set.
const SET_MAX: usize = 256 * 1024;
/// Keys of the largest key set.
const KEYS_MAX: usize = 100;
/// How often a file is looked at for a change.
const POLL: Duration = Duration::from_secs(1);
/// How often a key set is fetched while it can be, and while it cannot.
const REFRESH: Duration = Duration::from_secs(300);
const RETRY: Duration = Duration::from_secs(5);
/// Tokens with a key that is not known make the set be fetched at most this often.
const ON_DEMAND: Duration = Duration::from_secs(60);
/// Requests that wait for such a fetch; more are answered with the keys at hand.
const WAITING_MAX: usize = 16;
/// Ports that only the administrator of the machine opens.
const PRIVILEGED: u16 = 1024;
/// Time for one fetch.
const FETCH: Duration = Duration::from_secs(5);

/// Where a key set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// A file, read again when it changes.
    File(PathBuf),
    /// An address, fetched again every few minutes.
    Web {
        /// `https://…`, or `http://…` on this machine.
        url: Url,
        /// Whom its certificate must come from, and the lists that must not name it; none for `http`.
        trust: Option<TrustSettings>,
    },
}

impl KeyPlace {
    /// The key set at `url`. With `allow_development` any user of this machine may publish it by
    /// `http`, else only who may open a port below 1024.
    ///
    /// # Errors
    /// In words: what is wrong with the address, or that there is no authority to trust.
    pub fn web(
        url: &str,
        trust: Option<TrustSettings>,
        allow_development: bool,
    ) -> Result<Self, String> {
        let url = Url::parse(url).map_err(|error| error.to_string())?;
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err("must have no user, password or fragment".to_owned());
        }
        match (url.scheme(), trust) {
            ("https", None) => Err("needs identity.token.ca, the PEM file of the authorities its \
                                    certificate may come from, like /etc/ssl/certs/ca-certificates.crt"
                .to_owned()),
            ("https", trust) => Ok(Self::Web { url, trust }),
            ("http", _) if !is_loopback(&url) => {
                Err("must be https; http only on this machine (127.0.0.1, [::1], localhost)"
                    .to_owned())
            }
            ("http", Some(_)) => Err("is http, so there is nothing to verify with ca".to_owned()),
            ("http", None) if allow_development || is_privileged(&url) => {
                Ok(Self::Web { url, trust: None })
            }
            ("http", None) => Err("is http on a port that every user of this machine may open: \
                                   use https, a port below 1024, or tls.allow_development = true"
                .to_owned()),
            _ => Err("must start with https://".to_owned()),
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn is_privileged(url: &Url) -> bool {
    url.port_or_known_default().is_some_and(|port| port < PRIVILEGED)
}

/// A key and the one algorithm that it is good for.
pub(super) struct VerifyingKey {
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// The keys in force.
pub(super) struct KeySet(Vec<VerifyingKey>);

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| (&key.id, key.algorithm))).finish()
    }
}

impl KeySet {
    /// The usable keys of a JSON Web Key Set: public ones for signatures with one of `allowed`.
    ///
    /// # Errors
    /// In words: it is none, has none of them, has private keys or two with the same id.
    fn parse(json: &[u8], allowed: &[Algorithm]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let set: Set = serde_json::from_slice(json)
            .map_err(|error| format!("is no JSON Web Key Set: {error}"))?;
        if set.keys.len() > KEYS_MAX {
            return Err(format!("has more than {KEYS_MAX} keys"));
        }
        if set.keys.iter().any(|key| key.get("d").is_some()) {
            return Err(
                "has a private key: leave only the public ones, and replace this one".into()
            );
        }
        let mut ids = HashSet::new();
        let mut keys = Vec::new();
        for key in set.keys {
            let Ok(jwk) = serde_json::from_value::<Jwk>(key) else { continue };
            if !ids.insert(jwk.common.key_id.clone()) {
                return Err("has two keys with the same kid, or without one".to_owned());
            }
            // What is meant for something else stands in the same sets.
            keys.extend(verifying_key(&jwk, allowed));
        }
        if keys.is_empty() {
            return Err(format!("has no public key for signatures with one of {allowed:?}"));
        }
        Ok(Self(keys))
    }

    /// Whether the same keys are there, by id and algorithm.
    fn has_same(&self, other: &Self) -> bool {
        let names = |set: &Self| -> HashSet<(Option<String>, Algorithm)> {
            set.0.iter().map(|key| (key.id.clone(), key.algorithm)).collect()
        };
        names(self) == names(other)
    }

    /// The key with this id; without an id the only one, where there is only one.
    pub(super) fn find(&self, id: Option<&str>) -> Option<&VerifyingKey> {
        match (id, self.0.as_slice()) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (Some(id), keys) => keys.iter().find(|key| key.id.as_deref() == Some(id)),
        }
    }
}

fn verifying_key(jwk: &Jwk, allowed: &[Algorithm]) -> Option<VerifyingKey> {
    let common = &jwk.common;
    let signs = common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|of| of.contains(&KeyOperations::Verify));
    let algorithm = algorithm_of(jwk, allowed).filter(|_| signs)?;
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some(VerifyingKey { id: common.key_id.clone(), algorithm, key })
}

/// What the key is for: what it says, as far as its kind allows, or what its kind leaves open.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "kinds of keys that are none of these do not sign"
)]
fn algorithm_of(jwk: &Jwk, allowed: &[Algorithm]) -> Option<Algorithm> {
    use Algorithm as A;
    let possible: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => &[A::ES256],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => &[A::ES384],
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            &[A::EdDSA]
        }
        AlgorithmParameters::RSA(_) => {
            &[A::RS256, A::RS384, A::RS512, A::PS256, A::PS384, A::PS512]
        }
        _ => return None,
    };
    let mut usable = possible.iter().copied().filter(|algorithm| allowed.contains(algorithm));
    match jwk.common.key_algorithm {
        Some(named) => {
            let named = Algorithm::try_from(named).ok()?;
            usable.find(|algorithm| *algorithm == named)
        }
        // A key that could be for several is used for none.
        None => usable.next().filter(|_| usable.next().is_none()),
    }
}

/// Inode, size and times of change.
type Stamp = Option<(u64, u64, i64, i64, i64)>;

/// Keeps the keys of one issuer. Those that were had once stay in force while no others can be had.
pub struct KeySource {
    place: KeyPlace,
    /// Whom to trust there; none for a file and for `http`.
    tls: Option<Arc<TlsReloader>>,
    allowed: Vec<Algorithm>,
    clock: Clock,
    keys: ArcSwap<KeySet>,
    seen: Mutex<Stamp>,
    /// Whoever holds it fetches because of a token.
    on_demand: tokio::sync::Mutex<()>,
    /// Until when, in milliseconds of the clock, no token makes the keys be fetched.
    quiet_until: AtomicU64,
    waiting: Semaphore,
    failing: Mutex<bool>,
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySource").field("place", &self.place).finish_non_exhaustive()
    }
}

impl KeySource {
    /// The keys at `place` that are for one of the algorithms. A file is read at once; an address is
    /// left for [`KeySource::watch`], so that a server starts while its issuer is away.
    ///
    /// # Errors
    /// In words: the file cannot be used, or the authorities of the address cannot.
    pub fn new(
        place: KeyPlace,
        allowed: Vec<Algorithm>,
        clock: Clock,
    ) -> Result<Arc<Self>, String> {
        let (mut seen, mut keys, mut tls) = (None, KeySet(Vec::new()), None);
        match &place {
            KeyPlace::File(path) => {
                seen = stamp(path);
                keys = read(path, &allowed)?;
            }
            KeyPlace::Web { url, trust } => {
                let load = |trust| TlsReloader::load_trust(trust, Application::Http, clock.clone());
                let loaded = trust.as_ref().map(load).transpose();
                tls = loaded.map_err(|error| error.to_string())?;
                if let Some(tls) = &tls {
                    tls.announce(announce::tls);
                }
                drop(client(url, tls.as_deref())?);
            }
        }
        Ok(Arc::new(Self {
            place,
            tls,
            allowed,
            clock,
            keys: ArcSwap::from_pointee(keys),
            seen: Mutex::new(seen),
            on_demand: tokio::sync::Mutex::default(),
            quiet_until: AtomicU64::new(0),
            waiting: Semaphore::new(WAITING_MAX),
            failing: Mutex::default(),
        }))
    }

    pub(super) fn current(&self) -> Arc<KeySet> {
        self.keys.load_full()
    }

    /// The keys after another look, because a token has one that `known` lacks. Tokens of strangers
    /// can ask for this, so it is done at most once a minute unless it brought other keys, and only a
    /// few requests wait for it.
    pub(super) async fn look_again(&self, known: &Arc<KeySet>) -> Arc<KeySet> {
        if matches!(self.place, KeyPlace::File(_)) {
            return self.current();
        }
        // While another token makes them be fetched, they are worth waiting for.
        if self.is_quiet() && self.on_demand.try_lock().is_ok() {
            return self.current();
        }
        let Ok(_place) = self.waiting.try_acquire() else { return self.current() };
        let _fetching = self.on_demand.lock().await;
        // Whoever waited for the lock may find that another token has brought the keys.
        if !self.is_quiet() && Arc::ptr_eq(known, &self.current()) {
            // Before the fetch: a request may be given up meanwhile.
            self.quiet_until.store(millis(self.clock.instant() + ON_DEMAND), Ordering::Relaxed);
            self.refresh().await;
            if !self.current().has_same(known) {
                self.quiet_until.store(0, Ordering::Relaxed);
            }
        }
        self.current()
    }

    fn is_quiet(&self) -> bool {
        millis(self.clock.instant()) < self.quiet_until.load(Ordering::Relaxed)
    }

    /// Keeps the keys fresh, and what the place is trusted by, until `stop`.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let Some(tls) = self.tls.clone() else { return self.watch_keys(stop).await };
        tokio::select! {
            () = tls.fetch_lists() => {}
            () = stop.cancelled() => return,
        }
        tokio::join!(tls.watch(stop.clone()), self.watch_keys(stop));
    }

    async fn watch_keys(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let pause = match &self.place {
                KeyPlace::File(path) => {
                    let now = stamp(path);
                    let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                    let changed = std::mem::replace(&mut *seen, now) != now;
                    drop(seen);
                    if changed {
                        self.take(read(path, &self.allowed));
                    }
                    POLL
                }
                KeyPlace::Web { .. } => {
                    let refreshed = tokio::select! {
                        () = stop.cancelled() => return,
                        refreshed = self.refresh() => refreshed,
                    };
                    if refreshed { REFRESH } else { RETRY }
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Whether the last look was in vain.
    #[cfg(test)]
    pub(super) fn is_failing(&self) -> bool {
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file as after a change.
    #[cfg(test)]
    pub(super) fn read_again(&self) {
        if let KeyPlace::File(path) = &self.place {
            self.take(read(path, &self.allowed));
        }
    }

    async fn refresh(&self) -> bool {
        let KeyPlace::Web { url, .. } = &self.place else { return true };
        let fetched = async {
            // A new client each time: authorities and lists may have changed.
            let client = client(url, self.tls.as_deref())?;
            let json = fetch(&client, url).await?;
            KeySet::parse(&json, &self.allowed)
        };
        let fetched = match tokio::time::timeout(FETCH, fetched).await {
            Ok(fetched) => fetched,
            Err(_) => Err(format!("no answer within {} s", FETCH.as_secs())),
        };
        self.take(fetched)
    }

    /// Puts keys to use; what went wrong is told when it begins.
    fn take(&self, keys: Result<KeySet, String>) -> bool {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let place: &dyn fmt::Display = match &self.place {
            KeyPlace::File(path) => &path.display(),
            KeyPlace::Web { url, .. } => url,
        };
        match keys {
            Ok(keys) => {
                if *failing || self.keys.load().0.is_empty() {
                    tracing::info!(%place, ?keys, "the keys of the issuer are there");
                }
                self.keys.store(Arc::new(keys));
                *failing = false;
            }
            Err(error) => {
                if !*failing {
                    tracing::error!(%place, error, "the keys of the issuer are not usable, those known before stay in force");
                }
                *failing = true;
            }
        }
        !*failing
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn stamp(path: &Path) -> Stamp {
    let file = fs::metadata(path).ok()?;
    Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec(), file.ctime_nsec()))
}

fn read(path: &Path, allowed: &[Algorithm]) -> Result<KeySet, String> {
    use io::Read as _;
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let mut json = Vec::new();
    let most = u64::try_from(SET_MAX).unwrap_or(u64::MAX);
    let file = fs::File::open(path).map_err(failed)?;
    // Whoever writes to it could sign tokens for everybody.
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o022 != 0 {
        let path = path.display();
        return Err(format!(
            "{path} can be written by others (mode {mode:04o}): chmod go-w {path}"
        ));
    }
    file.take(most + 1).read_to_end(&mut json).map_err(failed)?;
    if json.len() > SET_MAX {
        return Err(format!("{} is larger than {SET_MAX} bytes", path.display()));
    }
    KeySet::parse(&json, allowed).map_err(|error| format!("{} {error}", path.display()))
}

/// A client that goes to this address alone: no redirects, no proxy, no other authority.
fn client(url: &Url, tls: Option<&TlsReloader>) -> Result<Client, String> {
    let config = match tls {
        Some(tls) => (*tls.client_config()).clone(),
        None => web_client_without_trust().map_err(|error| error.to_string())?,
    };
    Client::builder()
        .tls_backend_preconfigured(config)
        .https_only(url.scheme() == "https")
        .redirect(redirect::Policy::none())
        .no_proxy()
        .timeout(FETCH)
        .build()
        .map_err(|error| in_full(&error))
}

async fn fetch(client: &Client, url: &Url) -> Result<Vec<u8>, String> {
    let answer = client.get(url.clone()).send().await;
    let mut answer = answer.map_err(|error| in_full(&error))?;
    if answer.status() != reqwest::StatusCode::OK {
        return Err(format!("answered with status {}", answer.status()));
    }
    let mut json = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(|error| in_full(&error))? {
        json.extend_from_slice(&part);
        if json.len() > SET_MAX {
            return Err(format!("sent more than {SET_MAX} bytes"));
        }
    }
    Ok(json)
}

/// The error with its causes: its own text says only that something failed.
fn in_full(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests;

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
    sync::{Arc, Mutex, PoisonError},
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
    tls::{TrustSettings, web_client_without_trust},
};
use tokio_util::sync::CancellationToken;

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
        /// The authorities that its certificate must come from; none for `http`.
        ca: Option<PathBuf>,
    },
}

impl KeyPlace {
    /// The key set at `url`.
    ///
    /// # Errors
    /// In words: what is wrong with the address, or that there is no authority to trust.
    pub fn web(url: &str, ca: Option<PathBuf>) -> Result<Self, String> {
        let url = Url::parse(url).map_err(|error| error.to_string())?;
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err("must have no user, password or fragment".to_owned());
        }
        match (url.scheme(), ca) {
            ("https", None) => Err("needs identity.token.ca, the PEM file of the authorities its \
                                    certificate may come from, like /etc/ssl/certs/ca-certificates.crt"
                .to_owned()),
            ("https", ca) => Ok(Self::Web { url, ca }),
            ("http", _) if !is_loopback(&url) => {
                Err("must be https; http only on this machine (127.0.0.1, [::1], localhost)"
                    .to_owned())
            }
            ("http", None) => Ok(Self::Web { url, ca: None }),
            ("http", Some(_)) => Err("is http, so there is nothing to verify with ca".to_owned()),
            _ => Err("must start with https://".to_owned()),
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
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
    allowed: Vec<Algorithm>,
    clock: Clock,
    keys: ArcSwap<KeySet>,
    seen: Mutex<Stamp>,
    /// When a token last made the keys be fetched; whoever holds it fetches.
    on_demand: tokio::sync::Mutex<Option<Duration>>,
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
        let (mut seen, mut keys) = (None, KeySet(Vec::new()));
        match &place {
            KeyPlace::File(path) => {
                seen = stamp(path);
                keys = read(path, &allowed)?;
            }
            KeyPlace::Web { url, ca } => drop(client(url, ca.as_deref(), &clock)?),
        }
        Ok(Arc::new(Self {
            place,
            allowed,
            clock,
            keys: ArcSwap::from_pointee(keys),
            seen: Mutex::new(seen),
            on_demand: tokio::sync::Mutex::default(),
            failing: Mutex::default(),
        }))
    }

    pub(super) fn current(&self) -> Arc<KeySet> {
        self.keys.load_full()
    }

    /// The keys after another look, because a token has one that `known` lacks. Tokens of strangers
    /// can ask for this, so it is done at most once a minute.
    pub(super) async fn look_again(&self, known: &Arc<KeySet>) -> Arc<KeySet> {
        if matches!(self.place, KeyPlace::File(_)) {
            return self.current();
        }
        let mut last = self.on_demand.lock().await;
        let now = self.clock.instant();
        let recent = last.is_some_and(|last| now.saturating_sub(last) < ON_DEMAND);
        // Whoever waited for the lock may find that another token has brought the keys.
        if !recent && Arc::ptr_eq(known, &self.current()) {
            *last = Some(now);
            self.refresh().await;
        }
        self.current()
    }

    /// Keeps the keys fresh until `stop`.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
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

    async fn refresh(&self) -> bool {
        let KeyPlace::Web { url, ca } = &self.place else { return true };
        let fetched = async {
            // A new client each time: the file of authorities may have changed.
            let client = client(url, ca.as_deref(), &self.clock)?;
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

fn stamp(path: &Path) -> Stamp {
    let file = fs::metadata(path).ok()?;
    Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec(), file.ctime_nsec()))
}

fn read(path: &Path, allowed: &[Algorithm]) -> Result<KeySet, String> {
    use io::Read as _;
    let mut json = Vec::new();
    let most = u64::try_from(SET_MAX).unwrap_or(u64::MAX);
    let read = fs::File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut json));
    read.map_err(|error| format!("{}: {error}", path.display()))?;
    if json.len() > SET_MAX {
        return Err(format!("{} is larger than {SET_MAX} bytes", path.display()));
    }
    KeySet::parse(&json, allowed).map_err(|error| format!("{} {error}", path.display()))
}

/// A client that goes to this address alone: no redirects, no proxy, no other authority.
fn client(url: &Url, ca: Option<&Path>, clock: &Clock) -> Result<Client, String> {
    let config = match ca {
        Some(ca) => TrustSettings { ca: ca.to_owned(), crl: None, allow_development: false }
            .web_client(clock),
        None => web_client_without_trust(),
    };
    Client::builder()
        .tls_backend_preconfigured(config.map_err(|error| error.to_string())?)
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
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const EC: &str = r#"{"kty":"EC","crv":"P-256","kid":"a",
        "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    const RSA: &str = r#"{"kty":"RSA","kid":"r","n":"AQAB","e":"AQAB"}"#;

    fn parse(keys: &[&str], allowed: &[Algorithm]) -> Result<KeySet, String> {
        KeySet::parse(format!("{{\"keys\":[{}]}}", keys.join(",")).as_bytes(), allowed)
    }

    #[test]
    fn the_key_says_the_algorithm() {
        use Algorithm as A;
        let of = |key: &str, allowed: &[Algorithm]| {
            parse(&[key], allowed).ok().map(|set| set.find(None).unwrap().algorithm)
        };
        assert_eq!(of(EC, &[A::ES256, A::RS256]), Some(A::ES256));
        assert_eq!(of(EC, &[A::ES384, A::RS256]), None);
        assert_eq!(of(RSA, &[A::ES256, A::RS256]), Some(A::RS256));
        assert_eq!(of(RSA, &[A::RS256, A::PS256]), None, "it does not say which");
        for (alg, allowed, wanted) in [
            ("PS256", vec![A::RS256, A::PS256], Some(A::PS256)),
            ("RS512", vec![A::RS256], None),
            ("HS256", vec![A::RS256], None),
            ("none", vec![A::RS256], None),
            ("ES256", vec![A::ES256, A::RS256], None),
        ] {
            let key = RSA.replace("\"kid\"", &format!("\"alg\":\"{alg}\",\"kid\""));
            assert_eq!(of(&key, &allowed), wanted, "{alg}");
        }
        for other in [
            EC.replace("\"kid\"", "\"use\":\"enc\",\"kid\""),
            EC.replace("\"kid\"", "\"key_ops\":[\"encrypt\"],\"kid\""),
            r#"{"kty":"oct","kid":"s","k":"AAAA","alg":"HS256"}"#.to_owned(),
            r#"{"kty":"oct","kid":"s","k":"AAAA"}"#.to_owned(),
            EC.replace("P-256", "P-999"),
        ] {
            assert_eq!(of(&other, &[A::ES256, A::RS256]), None, "{other}");
        }
    }

    #[test]
    fn keys_are_found_by_their_id() {
        let allowed = [Algorithm::ES256, Algorithm::RS256];
        let two = parse(&[EC, RSA], &allowed).unwrap();
        assert_eq!(two.find(Some("r")).unwrap().algorithm, Algorithm::RS256);
        assert!(two.find(Some("x")).is_none() && two.find(None).is_none());
        let one = parse(&[EC, r#"{"kty":"new","kid":"n"}"#], &allowed).unwrap();
        assert!(one.find(None).is_some() && one.find(Some("n")).is_none());
    }

    #[test]
    fn sets_that_are_none_are_refused() {
        let allowed = [Algorithm::ES256];
        let private = EC.replace("\"kid\"", "\"d\":\"AAAA\",\"kid\"");
        let many = vec![EC; KEYS_MAX + 1];
        for (keys, wanted) in [
            (&[EC, EC][..], "same kid"),
            (&[private.as_str()], "private"),
            (&[], "no public key"),
            (&many, "more than 100"),
        ] {
            let error = parse(keys, &allowed).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
        for json in ["", "[]", "{}", "{\"keys\":{}}", "{\"keys\":[}"] {
            assert!(KeySet::parse(json.as_bytes(), &allowed).is_err(), "{json}");
        }
        let deep = format!("{{\"keys\":[{}", "[".repeat(100_000));
        assert!(KeySet::parse(deep.as_bytes(), &allowed).is_err());
    }

    #[test]
    fn addresses_are_https_or_on_this_machine() {
        let ca = Some(PathBuf::from("/ca.pem"));
        assert!(KeyPlace::web("https://id.example/jwks", ca.clone()).is_ok());
        for url in ["http://127.0.0.1:1/jwks", "http://[::1]/jwks", "http://localhost:9/"] {
            assert!(KeyPlace::web(url, None).is_ok(), "{url}");
            assert!(KeyPlace::web(url, ca.clone()).is_err(), "{url}");
        }
        for url in [
            "http://id.example/jwks",
            "http://10.0.0.1/",
            "http://127.0.0.1.example/",
            "http://localhost.example/",
            "https://user@id.example/",
            "https://:pass@id.example/",
            "https://id.example/#x",
            "file:///etc/passwd",
            "id.example",
            "",
        ] {
            assert!(KeyPlace::web(url, None).is_err(), "{url}");
        }
    }

    /// Answers every request with these bytes, and counts them.
    async fn publish(answer: String) -> (Arc<KeySource>, Clock, Arc<AtomicUsize>) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = tcp.read(&mut [0; 4096]).await;
                let _ = tcp.write_all(answer.as_bytes()).await;
            }
        });
        let clock = Clock::manual(time::OffsetDateTime::UNIX_EPOCH);
        let place = KeyPlace::web(&url, None).unwrap();
        let source = KeySource::new(place, vec![Algorithm::ES256], clock.clone()).unwrap();
        (source, clock, count)
    }

    fn answer(head: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    #[tokio::test]
    async fn tokens_of_strangers_fetch_the_keys_once_a_minute() {
        let (source, clock, count) =
            publish(answer("200 OK", &format!("{{\"keys\":[{EC}]}}"))).await;
        let none = source.current();
        let (first, second) = tokio::join!(source.look_again(&none), source.look_again(&none));
        assert!(first.find(Some("a")).is_some() && second.find(Some("a")).is_some());
        for _ in 0..10 {
            let _ = source.look_again(&source.current()).await;
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
        clock.advance(ON_DEMAND);
        for _ in 0..10 {
            let _ = source.look_again(&source.current()).await;
        }
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn only_a_key_set_of_bounded_size_is_taken_from_there() {
        let set = format!("{{\"keys\":[{EC}]}}");
        for wrong in [
            answer("302 Found\r\nlocation: /elsewhere", &set),
            answer("404 Not Found", &set),
            answer("200 OK", &format!("{set}{}", " ".repeat(SET_MAX))),
            answer("200 OK", "{}"),
            "nonsense".to_owned(),
        ] {
            let (source, _, count) = publish(wrong).await;
            assert!(!source.refresh().await);
            assert!(source.current().find(None).is_none());
            assert_eq!(count.load(Ordering::SeqCst), 1, "asked once, at the one address");
        }
    }
}

//! Revocation lists with a URL: the last good ones, when to fetch them again, and the folder that keeps
//! them over a restart.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustls::{RootCertStore, crypto::WebPkiSupportedAlgorithms};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::{
    lists::{CACHED_MAX, ListProblem, RevocationList, read_lists},
    own::shown,
    settings::{ListSource, RevocationPolicy, TrustSettings},
};
use crate::{peer::hex, settings::write_private};

/// The first pause after a failure; it doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A list that is to end is not asked for more often than this.
const ENDING_PAUSE: Duration = Duration::from_secs(60);
/// The lists of one URL of unknown signers that stay when others come.
const KEPT_MAX: usize = 8;

/// What is known of every URL.
#[derive(Debug)]
pub(crate) struct Sources {
    urls: Mutex<BTreeMap<String, Fetched>>,
    refresh: Duration,
    cache: Option<PathBuf>,
}

/// What came from one URL.
#[derive(Clone, Debug, Default)]
pub(super) struct Fetched {
    /// The last good ones.
    pub(super) lists: Vec<Arc<RevocationList>>,
    /// When they came.
    pub(super) fetched_at: Option<OffsetDateTime>,
    /// Why there are no newer ones.
    pub(super) problem: Option<String>,
    /// In a row.
    failures: u32,
    /// On the clock that never goes back; zero: at once.
    due: Duration,
}

/// Who may sign lists, as far as it is known without the certificate of a peer.
#[derive(Clone, Copy)]
pub(super) struct Signers<'r> {
    pub(super) roots: &'r RootCertStore,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl Signers<'_> {
    /// Whether a list has the name of an authority that is trusted here, and none of that name signed
    /// it.
    pub(super) fn disown(self, list: &RevocationList) -> bool {
        let mut namesakes =
            self.roots.roots.iter().filter(|root| list.is_of(&root.subject)).peekable();
        namesakes.peek().is_some()
            && !namesakes
                .any(|root| list.is_signed_by(&root.subject_public_key_info, self.algorithms))
    }

    /// Whether one who is known to have signed `old` signed `new`, too.
    fn are_same(self, old: &RevocationList, new: &RevocationList) -> bool {
        old.known_signers().iter().any(|key| new.is_signed_by(key, self.algorithms))
    }
}

impl Sources {
    /// The URLs in the settings, with what the folder holds of their lists.
    pub(super) fn new(settings: &TrustSettings, now: OffsetDateTime) -> Self {
        let mut urls = BTreeMap::new();
        if settings.revocation_policy() != RevocationPolicy::Off {
            for source in &settings.crl {
                if let ListSource::Url(url) = source {
                    urls.insert(url.clone(), Fetched::default());
                }
            }
        }
        let sources = Self {
            urls: Mutex::new(urls),
            refresh: settings.crl_refresh,
            cache: settings.crl_cache.clone(),
        };
        sources.read_cache(now);
        sources
    }

    /// The last good lists of all URLs.
    pub(super) fn lists(&self) -> Vec<Arc<RevocationList>> {
        self.urls().values().flat_map(|fetched| fetched.lists.clone()).collect()
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.urls().keys().cloned().collect()
    }

    /// Those to fetch now; `instant` is the time of the clock that never goes back.
    pub(super) fn due(&self, instant: Duration) -> Vec<String> {
        let urls = self.urls();
        urls.iter().filter(|(_, it)| it.due <= instant).map(|(url, _)| url.clone()).collect()
    }

    /// Why there are no lists, or no newer ones: URL and problem.
    pub(super) fn problems(&self) -> Vec<(String, String)> {
        let urls = self.urls();
        let problem = |(url, it): (&String, &Fetched)| Some((url.clone(), it.problem.clone()?));
        urls.iter().filter_map(problem).collect()
    }

    pub(super) fn fetched(&self) -> BTreeMap<String, Fetched> {
        self.urls().clone()
    }

    /// Takes the lists that came from a URL, or why none came. `true`: there are other lists now.
    pub(super) fn take(
        &self,
        url: &str,
        came: Result<Vec<Arc<RevocationList>>, String>,
        signers: Signers<'_>,
        (now, instant): (OffsetDateTime, Duration),
    ) -> bool {
        let mut urls = self.urls();
        let Some(fetched) = urls.get_mut(url) else { return false };
        let taken = came.and_then(|lists| fetched.replace(lists, signers, now));
        let changed = match taken {
            Ok(changed) => {
                (fetched.fetched_at, fetched.problem) = (Some(now), None);
                changed
            }
            Err(problem) => {
                fetched.problem = Some(problem);
                false
            }
        };
        fetched.schedule(self.refresh, (now, instant));
        let kept = changed.then(|| fetched.lists.clone());
        drop(urls);
        if let Some(lists) = kept {
            let text: String = lists.iter().filter_map(|list| list.pem()).collect();
            self.write_cache(url, text.as_bytes());
        }
        changed
    }

    fn urls(&self) -> MutexGuard<'_, BTreeMap<String, Fetched>> {
        self.urls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_cache(&self, now: OffsetDateTime) {
        let Some(folder) = &self.cache else { return };
        if !is_private(folder) {
            return;
        }
        for (url, fetched) in self.urls().iter_mut() {
            let path = cached(folder, url);
            let lists = match read_lists(&path, &ListSource::Url(url.clone()), CACHED_MAX) {
                Ok(Ok(lists)) => lists,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Ok(Err(ListProblem(problem))) => {
                    tracing::warn!(file = %path.display(), problem, "a kept list is not usable");
                    continue;
                }
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "a kept list cannot be read");
                    continue;
                }
            };
            let written = fs::metadata(&path).and_then(|it| it.modified()).ok();
            fetched.lists = lists;
            fetched.fetched_at = written.map(OffsetDateTime::from).filter(|at| *at <= now);
        }
    }

    fn write_cache(&self, url: &str, content: &[u8]) {
        let Some(folder) = &self.cache else { return };
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        if made.is_ok() && !is_private(folder) {
            return;
        }
        if let Err(error) = made.and_then(|()| write_private(&cached(folder, url), content, true)) {
            tracing::warn!(
                folder = %folder.display(),
                %error,
                "a revocation list cannot be kept for the next start"
            );
        }
    }
}

impl Fetched {
    /// Puts these lists in the place of those of the same authorities. `Ok(true)`: something changed.
    ///
    /// Whoever stands between this program and a distribution point must not be able to take away what
    /// a list said. So a list whose signer is known gives way to a newer one of the same signer alone,
    /// whatever else comes; one whose signer is not known yet stays beside what comes, as far as there
    /// is room.
    fn replace(
        &mut self,
        lists: Vec<Arc<RevocationList>>,
        signers: Signers<'_>,
        now: OffsetDateTime,
    ) -> Result<bool, String> {
        let (mut proven, mut unproven) = (Vec::new(), Vec::new());
        for old in &self.lists {
            let is_disowned = signers.disown(old);
            let is_proven = old.is_proven();
            let mut gives_way = false;
            for new in lists.iter().filter(|new| new.has_place_of(old)) {
                if is_proven && signers.disown(new) {
                    return Err(format!(
                        "the list of {} there is not signed by that authority; the one at hand stays \
                         in use",
                        new.issuer
                    ));
                }
                if is_proven && signers.are_same(old, new) {
                    if new.this_update < old.this_update && !old.is_early(now) {
                        return Err(format!(
                            "the list of {} there was issued on {} and is older than the one at hand, \
                             which stays in use",
                            new.issuer,
                            shown(new.this_update)
                        ));
                    }
                    gives_way = true;
                }
                gives_way |= is_disowned && !signers.disown(new);
            }
            gives_way &= !lists.iter().any(|new| new.is_same(old));
            if gives_way {
                continue;
            }
            if is_proven { proven.push(Arc::clone(old)) } else { unproven.push(Arc::clone(old)) }
        }
        if unproven.len() > KEPT_MAX {
            unproven.retain(|old| !old.has_ended(now));
        }
        // Nobody can tell the right one from the others: the first and the last have a chance.
        while unproven.len() > KEPT_MAX {
            unproven.remove(KEPT_MAX / 2);
        }
        let mut all = proven;
        all.append(&mut unproven);
        // Of equal ones the old stays: it knows its signers.
        for new in lists {
            if !all.iter().any(|old| old.is_same(&new)) {
                all.push(new);
            }
        }
        let changed = all.len() != self.lists.len()
            || all.iter().any(|new| !self.lists.iter().any(|old| old.is_same(new)));
        self.lists = all;
        Ok(changed)
    }

    /// When to fetch again.
    fn schedule(&mut self, refresh: Duration, (now, instant): (OffsetDateTime, Duration)) {
        let ends = self.lists.iter().map(|list| {
            let period = (list.next_update - list.this_update).max(time::Duration::ZERO);
            // A tenth of its life before its end.
            list.next_update - period / 10
        });
        let until_end = ends.min().map_or(refresh, |end| {
            Duration::try_from(end - now).unwrap_or_default().max(ENDING_PAUSE)
        });
        let pause = if self.problem.is_some() {
            self.failures = self.failures.saturating_add(1);
            let doubled = 1_u32.checked_shl(self.failures - 1).unwrap_or(u32::MAX);
            FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE).min(refresh)
        } else {
            self.failures = 0;
            until_end.min(refresh)
        };
        self.due = instant.saturating_add(pause);
    }
}

/// The file of a URL's lists.
fn cached(folder: &Path, url: &str) -> PathBuf {
    folder.join(format!("{}.crl", hex(&Sha256::digest(url.as_bytes()))))
}

/// Whoever may write in the folder could bring back an old list.
fn is_private(folder: &Path) -> bool {
    let Ok(found) = fs::metadata(folder) else { return false };
    let is_private = found.mode() & 0o022 == 0;
    if !is_private {
        tracing::error!(
            folder = %folder.display(),
            "others may write in the folder of revocation lists, which is not used: run `chmod go-w` \
             on it"
        );
    }
    is_private
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// The pause until the next try.
    fn pause(fetched: &mut Fetched, refresh: Duration, now: OffsetDateTime) -> Duration {
        let instant = Duration::from_secs(1_000_000);
        fetched.schedule(refresh, (now, instant));
        fetched.due - instant
    }

    #[test]
    fn after_failures_the_pauses_grow_and_end_with_them() {
        let now = datetime!(2024-01-01 0:00 UTC);
        let mut fetched = Fetched { problem: Some("away".into()), ..Fetched::default() };
        let pauses: Vec<u64> = (0..9).map(|_| pause(&mut fetched, HOUR, now).as_secs()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        fetched.failures = u32::MAX;
        assert_eq!(pause(&mut fetched, HOUR, now), LONGEST_PAUSE);
        // Never longer than between successes.
        assert_eq!(pause(&mut fetched, Duration::from_secs(30), now).as_secs(), 30);
        fetched.problem = None;
        assert_eq!(pause(&mut fetched, HOUR, now), HOUR);
        fetched.problem = Some("away".into());
        assert_eq!(pause(&mut fetched, HOUR, now), FIRST_PAUSE);
    }

    #[test]
    fn a_list_that_is_to_end_is_fetched_earlier() {
        use rcgen::{
            CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod,
            KeyPair, KeyUsagePurpose, SerialNumber,
        };
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let begin = datetime!(2024-01-01 0:00 UTC);
        let list = CertificateRevocationListParams {
            this_update: begin,
            next_update: begin + 10 * HOUR,
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&issuer).unwrap();
        let source = ListSource::Url("http://pki.example/".into());
        let lists = crate::tls::lists::parse_lists(&source, list.der(), 1).unwrap();
        let mut fetched = Fetched { lists, ..Fetched::default() };
        // A tenth of its ten hours before its end.
        assert_eq!(pause(&mut fetched, 24 * HOUR, begin), 9 * HOUR);
        assert_eq!(pause(&mut fetched, HOUR, begin), HOUR);
        assert_eq!(pause(&mut fetched, HOUR, begin + 9 * HOUR), ENDING_PAUSE);
        assert_eq!(pause(&mut fetched, HOUR, begin + 90 * HOUR), ENDING_PAUSE);
    }
}

//! What is in use and what is wrong with it: for status, metrics, warnings and the log.

use std::collections::{BTreeMap, BTreeSet};

use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

use super::{
    TlsNotice, TlsReloader,
    lists::RevocationList,
    own::shown,
    settings::RevocationPolicy,
    sources::Signers,
    status::{CertificateRole, CertificateStatus, ListStatus, TlsStatus},
};
use crate::{
    peer::{hex, parse_x509, thumbprint_sha1, thumbprint_sha256},
    verifier::printable,
};

/// Days before the end of a certificate at which a warning is given.
const WARN_DAYS: [i64; 3] = [1, 7, 30];

/// What is remembered between two looks.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// The last reload that failed, if none succeeded since.
    pub(super) last_failure: Option<(OffsetDateTime, String)>,
    /// What the log has been told, and is not told again before it was mended.
    told: BTreeSet<String>,
}

/// The own chain and the authorities, as the status shows them.
pub(super) fn certificate_statuses(
    chain: &[CertificateDer<'_>],
    authorities: &[CertificateDer<'_>],
) -> Vec<CertificateStatus> {
    let roles = std::iter::once(CertificateRole::Own)
        .chain(std::iter::repeat(CertificateRole::Intermediate));
    let own = roles.zip(chain);
    let authorities = authorities.iter().map(|it| (CertificateRole::Authority, it));
    // What cannot be parsed was refused at the load.
    own.chain(authorities).filter_map(|(role, it)| certificate_status(role, it)).collect()
}

fn certificate_status(
    role: CertificateRole,
    certificate: &CertificateDer<'_>,
) -> Option<CertificateStatus> {
    let parsed = parse_x509(certificate).ok()?;
    Some(CertificateStatus {
        role,
        subject: printable(&parsed.subject().to_string()),
        issuer: printable(&parsed.issuer().to_string()),
        serial: hex(parsed.raw_serial()),
        thumbprint_sha1: thumbprint_sha1(certificate),
        thumbprint_sha256: thumbprint_sha256(certificate),
        not_before: parsed.validity().not_before.to_datetime(),
        not_after: parsed.validity().not_after.to_datetime(),
    })
}

impl CertificateStatus {
    fn words(&self) -> String {
        let what = match self.role {
            CertificateRole::Own => "the certificate",
            CertificateRole::Intermediate => "the intermediate certificate",
            CertificateRole::Authority => "the certificate of the authority",
        };
        format!("{what} {}", self.subject)
    }

    /// The number of days that the end is nearer than, of those that are warned at.
    fn warned_at(&self, now: OffsetDateTime) -> Option<i64> {
        let left = self.not_after - now;
        WARN_DAYS.into_iter().find(|days| left < Duration::days(*days))
    }

    fn warning(&self, now: OffsetDateTime) -> Option<String> {
        let (what, end) = (self.words(), shown(self.not_after));
        if self.not_after < now {
            return Some(format!("{what} expired on {end}: renew it"));
        }
        self.warned_at(now)?;
        let left = self.not_after - now;
        let (days, hours) = (left.whole_days(), left.whole_hours());
        Some(match days {
            0 => format!("{what} ends in {hours} h, on {end}: renew it"),
            1 => format!("{what} ends in 1 day, on {end}: renew it"),
            _ => format!("{what} ends in {days} days, on {end}: renew it"),
        })
    }

    fn notice(&self, now: OffsetDateTime) -> Option<(String, TlsNotice)> {
        let (certificate, not_after) = (self.words(), self.not_after);
        if not_after < now {
            let key = format!("ended {}", self.thumbprint_sha256);
            return Some((key, TlsNotice::CertificateEnded { certificate, not_after }));
        }
        let key = format!("ends {} {}", self.warned_at(now)?, self.thumbprint_sha256);
        let days_left = (not_after - now).whole_days();
        Some((key, TlsNotice::CertificateEndsSoon { certificate, not_after, days_left }))
    }
}

impl ListStatus {
    fn has_ended(&self, now: OffsetDateTime) -> bool {
        self.next_update.is_some_and(|next| next <= now)
    }

    fn warning(&self, now: OffsetDateTime) -> Option<String> {
        let source = &self.source;
        if let Some(problem) = &self.problem {
            return Some(format!("the revocation list from {source}: {problem}"));
        }
        let (issuer, this) = (self.issuer.as_deref()?, self.this_update?);
        let next = self.next_update?;
        let period: Duration = next - this;
        let lead = Duration::clamp(period / 10, Duration::ZERO, Duration::days(1));
        (next - now < lead).then(|| {
            let end = shown(next);
            format!(
                "the revocation list of {issuer} from {source} ends on {end}: a newer one is due"
            )
        })
    }

    fn notice(&self, now: OffsetDateTime) -> Option<(String, TlsNotice)> {
        let source = self.source.clone();
        if let (true, Some(next_update)) = (self.has_ended(now), self.next_update) {
            let key = format!("list ended {source} {}", next_update.unix_timestamp());
            return Some((key, TlsNotice::ListExpired { source, next_update }));
        }
        let problem = self.problem.clone()?;
        Some((format!("list {source}"), TlsNotice::ListUnavailable { source, problem }))
    }
}

impl TlsReloader {
    /// What is in use.
    #[must_use]
    pub fn status(&self) -> TlsStatus {
        let current = self.current();
        TlsStatus {
            generation: current.number(),
            loaded_at: current.material.loaded_at,
            last_failure: self.lock_report().last_failure.clone(),
            minimum_version: self.shape.trust.minimum_version,
            revocation: self.shape.policy(),
            client_certificate: self.shape.client_certificate,
            certificates: current.material.certificates.clone(),
            lists: self.list_statuses(),
        }
    }

    /// What an administrator should look at, a sentence each: certificates and lists that end or ended,
    /// lists that are missing, a reload that failed.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let (status, now) = (self.status(), self.clock().now());
        let failure = status.last_failure.as_ref().map(|(when, error)| {
            let when = shown(*when);
            format!("the reload of {when} failed, what was loaded before is in use: {error}")
        });
        let certificates = status.certificates.iter().filter_map(|it| it.warning(now));
        let in_use = status.revocation != RevocationPolicy::Off;
        let lists = status.lists.iter().filter(|_| in_use).filter_map(|it| it.warning(now));
        let gap = self.current().material.gap.clone();
        let leniency = self.leniency().map(str::to_owned);
        let all = failure.into_iter().chain(certificates).chain(lists).chain(gap);
        all.chain(leniency).collect()
    }

    fn list_statuses(&self) -> Vec<ListStatus> {
        let (current, now) = (self.current(), self.clock().now());
        let signers = current.material.signers();
        let mut statuses: Vec<ListStatus> = current
            .material
            .lists
            .iter()
            .map(|list| list_status(list, Some(current.material.loaded_at), signers, now))
            .collect();
        for (url, fetched) in self.sources.fetched() {
            for list in &fetched.lists {
                let mut status = list_status(list, fetched.fetched_at, signers, now);
                status.problem = match (status.problem, &fetched.problem) {
                    (Some(problem), Some(why)) => Some(format!("{problem}; {why}")),
                    (problem, why) => problem.or_else(|| why.clone()),
                };
                statuses.push(status);
            }
            if fetched.lists.is_empty() {
                let problem = fetched.problem.unwrap_or_else(|| "not fetched yet".to_owned());
                statuses.push(missing(url, problem));
            }
        }
        if self.shape.policy() == RevocationPolicy::Off {
            for source in &self.shape.trust.crl {
                statuses
                    .push(missing(source.to_string(), "not looked at: revocation is off".into()));
            }
        }
        statuses
    }

    /// Tells the log what is new since the last look, and brings the gauges up to date. Of a caller
    /// without a certificate of its own only the lists: the authorities that it trusts may be all those
    /// of the Internet.
    pub(super) fn tell_news(&self) {
        self.measure();
        let (status, now) = (self.status(), self.clock().now());
        let told_of = self.shape.identity.is_some();
        let certificates =
            status.certificates.iter().filter(|_| told_of).filter_map(|it| it.notice(now));
        let in_use = self.shape.policy() != RevocationPolicy::Off;
        let lists = status.lists.iter().filter(|_| in_use).filter_map(|it| it.notice(now));
        let gap = self.current().material.gap.clone();
        let found: Vec<(String, TlsNotice)> = certificates.chain(lists).collect();
        let mut news = Vec::new();
        let mut report = self.lock_report();
        let mut told: BTreeSet<String> = found.iter().map(|(key, _)| key.clone()).collect();
        for (key, notice) in found {
            if !report.told.contains(&key) {
                news.push(notice);
            }
        }
        let gap = gap.filter(|words| {
            told.insert(words.clone());
            !report.told.contains(words)
        });
        report.told = told;
        drop(report);
        for notice in news {
            self.notices.give(&notice);
        }
        if let Some(words) = gap {
            tracing::warn!(words, "peers may not find the way to the own certificate's authority");
        }
    }

    /// Brings the gauges up to date. There is one set of them in a program: that of its own certificate.
    pub(super) fn measure(&self) {
        if self.shape.identity.is_none() {
            return;
        }
        let status = self.status();
        // The earliest of each: a certificate or list that gives way to another leaves nothing behind.
        let mut ends: BTreeMap<&'static str, OffsetDateTime> = BTreeMap::new();
        for certificate in &status.certificates {
            let end = ends.entry(certificate.role.as_str()).or_insert(certificate.not_after);
            *end = certificate.not_after.min(*end);
        }
        for (role, end) in ends {
            metrics::gauge!("sso_tls_certificate_expiry_seconds", "role" => role).set(seconds(end));
        }
        let mut updates: BTreeMap<&str, OffsetDateTime> = BTreeMap::new();
        for list in &status.lists {
            if let Some(next) = list.next_update {
                let earliest = updates.entry(&list.source).or_insert(next);
                *earliest = next.min(*earliest);
            }
        }
        for (source, next) in updates {
            metrics::gauge!(
                "sso_tls_revocation_list_next_update_seconds",
                "source" => source.to_owned()
            )
            .set(seconds(next));
        }
        metrics::gauge!("sso_tls_last_reload_seconds").set(seconds(status.loaded_at));
    }
}

fn list_status(
    list: &RevocationList,
    fetched_at: Option<OffsetDateTime>,
    signers: Signers<'_>,
    now: OffsetDateTime,
) -> ListStatus {
    let problem = if signers.disown(list) {
        Some(format!("it has the name of the authority {} and is not signed by it", list.issuer))
    } else if list.has_ended(now) {
        Some(format!("it ended on {}: a newer one is needed", shown(list.next_update)))
    } else if list.this_update > now {
        Some(format!("it is issued from {} on: compare the clocks", shown(list.this_update)))
    } else {
        None
    };
    ListStatus {
        source: list.source.to_string(),
        issuer: Some(printable(&list.issuer)),
        this_update: Some(list.this_update),
        next_update: Some(list.next_update),
        fetched_at,
        problem,
    }
}

fn missing(source: String, problem: String) -> ListStatus {
    ListStatus {
        source,
        issuer: None,
        this_update: None,
        next_update: None,
        fetched_at: None,
        problem: Some(problem),
    }
}

/// Seconds since 1970, as gauges have them.
#[expect(clippy::cast_precision_loss, reason = "exact for some hundred million years")]
fn seconds(time: OffsetDateTime) -> f64 {
    time.unix_timestamp() as f64
}

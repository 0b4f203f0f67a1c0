//! Who is served and who is refused, with which reason: every kind of certificate, version, list and
//! policy, with three different clients against the real server.

mod commands;
mod garbage;
pub(crate) mod oracle;
mod peers;
mod resume;
mod rows;
mod servers;
pub(crate) mod subject;
mod urls;
pub(crate) mod zoo;

use std::{collections::BTreeMap, sync::Arc};

use tokio::{runtime::Runtime, sync::Semaphore, task::JoinSet};

use self::{
    oracle::{Lists, Outcome, Policy, Variant, Version, alert, expected},
    peers::{Peer, Seen},
    subject::{HANDSHAKES, Refusal, SOFT_FAILURES, Subject},
    zoo::Kind,
};

/// Clients at once.
const AT_ONCE: usize = 8;

/// A client of the matrix.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    peer: Peer,
    version: Version,
    kind: Kind,
}

fn attempts(peers: &[Peer]) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    for &peer in peers {
        for &version in peer.versions() {
            attempts.extend(Kind::ALL.map(|kind| Attempt { peer, version, kind }));
        }
    }
    attempts
}

async fn play(subject: &Subject, attempts: &[Attempt]) -> Vec<(Attempt, Seen)> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for &attempt in attempts {
        let (places, target) = (Arc::clone(&places), subject.target());
        let files = subject.zoo.files(attempt.kind).cloned();
        running.spawn(async move {
            let _place = places.acquire_owned().await.expect("a place");
            let Attempt { peer, version, kind } = attempt;
            (attempt, peer.ask(&target, version, (kind, files.as_ref())).await)
        });
    }
    running.join_all().await
}

/// What is wrong with what a client saw.
fn mismatch(wanted: Outcome, attempt: Attempt, seen: &Seen) -> Option<String> {
    match (wanted, seen) {
        (Outcome::Served | Outcome::LetThrough(_), Seen::Served) => None,
        (Outcome::Refused(why), Seen::Refused { alert: found, reason, words }) => {
            let wanted = alert(why);
            match attempt.peer {
                Peer::OpenSsl | Peer::Curl => (*found != Some(wanted))
                    .then(|| format!("alert {found:?} instead of {wanted}: {words}")),
                Peer::Own => {
                    let known = known_to_clients(why);
                    let right = *reason == Some(known) && words.contains(known);
                    (!right).then(|| format!("{reason:?} instead of {known}: {words}"))
                }
            }
        }
        (_, seen) => Some(format!("{seen:?}")),
    }
}

/// What a client can know of the reason: as much as the alert says.
fn known_to_clients(reason: &'static str) -> &'static str {
    match alert(reason) {
        45 => oracle::CERTIFICATE_EXPIRED,
        113 => oracle::LIST_UNAVAILABLE,
        _ => reason,
    }
}

/// The refusals that the log has to show.
fn refusals(subject: &Subject, variant: Variant, attempts: &[Attempt]) -> Vec<Refusal> {
    let mut wanted = Vec::new();
    for attempt in attempts {
        let Outcome::Refused(why) = expected(variant, attempt.version, attempt.kind) else {
            continue;
        };
        let files = subject.zoo.files(attempt.kind).filter(|_| why != oracle::PROTOCOL_VERSION);
        wanted.push(Refusal {
            reason: why.to_owned(),
            thumbprint: files.map(|files| files.thumbprint.clone()).unwrap_or_default(),
            serial: files.map(|files| files.serial.clone()).unwrap_or_default(),
        });
    }
    wanted.sort();
    wanted
}

fn counted<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeMap<T, u64> {
    items.into_iter().fold(BTreeMap::new(), |mut counts, item| {
        *counts.entry(item).or_default() += 1;
        counts
    })
}

/// Plays one variant, and tells what is not as it has to be.
fn judge(
    runtime: &Runtime,
    subject: &Subject,
    variant: Variant,
    attempts: &[Attempt],
) -> Vec<String> {
    let mut wrong = Vec::new();
    let log = subject.log_length();
    let wanted = refusals(subject, variant, attempts);
    let reasons = counted(wanted.iter().map(|refusal| refusal.reason.as_str()));
    let soft = counted(attempts.iter().filter_map(|attempt| {
        match expected(variant, attempt.version, attempt.kind) {
            Outcome::LetThrough(why) => Some(why),
            Outcome::Served | Outcome::Refused(_) => None,
        }
    }));
    let count = |name, reasons: &BTreeMap<&str, u64>| -> Vec<u64> {
        reasons.keys().map(|reason| subject.count(name, &[*reason])).collect()
    };
    let before = (count(HANDSHAKES, &reasons), count(SOFT_FAILURES, &soft));

    for (attempt, seen) in runtime.block_on(play(subject, attempts)) {
        let outcome = expected(variant, attempt.version, attempt.kind);
        if let Some(what) = mismatch(outcome, attempt, &seen) {
            wrong.push(format!("{variant:?} {attempt:?}, {outcome:?} expected: {what}"));
        }
    }

    let mut found = subject.refusals(log, wanted.len());
    found.sort();
    let (wanted_counts, found_counts) = (counted(&wanted), counted(&found));
    for refusal in wanted_counts.keys().chain(found_counts.keys()).copied() {
        let times = |counts: &BTreeMap<&Refusal, u64>| counts.get(refusal).copied().unwrap_or(0);
        let (wanted, found) = (times(&wanted_counts), times(&found_counts));
        if wanted != found {
            wrong.push(format!("{variant:?}: {found} instead of {wanted} in the log: {refusal:?}"));
        }
    }
    for (name, reasons, before) in
        [(HANDSHAKES, &reasons, before.0), (SOFT_FAILURES, &soft, before.1)]
    {
        let after = count(name, reasons);
        for (((reason, wanted), before), after) in reasons.iter().zip(before).zip(after) {
            if after - before != *wanted {
                let found = after - before;
                wrong.push(format!("{variant:?}: {name} {reason} {found} instead of {wanted}"));
            }
        }
    }
    wrong
}

/// What a person may have overlooked: how strict it is has to stand in the log at the start.
fn warned(subject: &Subject, policy: Policy, log: usize) -> bool {
    let lines = subject.log_since(log);
    let warns = |line: &serde_json::Value| {
        subject::text(line, "level") == "WARN" && subject::text(line, "message").contains("revo")
    };
    policy == Policy::HardFail || lines.iter().any(warns)
}

#[test]
fn every_client_is_served_or_refused_for_the_right_reason() {
    let runtime = Runtime::new().expect("a runtime");
    let attempts = attempts(&Peer::installed());
    let mut subject = Subject::prepare();
    let mut wrong = Vec::new();
    for (minimum, policy) in Variant::all() {
        let log = subject.log_length();
        subject.write_lists(Variant::LISTS[0]);
        subject.start_variant(minimum, policy);
        if !warned(&subject, policy, log) {
            wrong.push(format!("{minimum:?} {policy:?}: no warning at the start"));
        }
        for lists in Variant::LISTS {
            subject.write_lists(lists);
            // Those of others are not taken in the place of good ones, only when there were none.
            if lists == Lists::Namesake {
                subject.start_variant(minimum, policy);
            } else {
                subject.reload();
            }
            let variant = Variant::of(minimum, policy, lists);
            wrong.extend(judge(&runtime, &subject, variant, &attempts));
        }
    }
    assert!(wrong.is_empty(), "{} of it is wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Whoever may do without a certificate is not let in with a bad one.
#[test]
fn optional_certificates_are_judged_like_required_ones() {
    let runtime = Runtime::new().expect("a runtime");
    let attempts = attempts(&Peer::installed());
    let mut subject = Subject::prepare();
    subject.write_lists(Lists::Good);
    subject.start_with_optional_certificates(Policy::HardFail);
    let variant =
        Variant { optional: true, ..Variant::of(Version::Tls13, Policy::HardFail, Lists::Good) };
    let wrong = judge(&runtime, &subject, variant, &attempts);
    assert!(wrong.is_empty(), "{} of it is wrong:\n{}", wrong.len(), wrong.join("\n"));
}

//! Revocation lists that are fetched: from a distribution point that answers, misbehaves, goes away
//! and comes back.

use std::{fs, path::Path, time::Duration};

use sso_core::clock::Clock;
use sso_tests::{
    list_server::{Answer, ListServer},
    system::eventually,
};
use tokio::runtime::Runtime;
use toml::{Table, Value};

use super::{
    oracle::{self, Lists},
    peers::{Peer, Seen},
    subject::{SOFT_FAILURES, Subject, text, zoo_lists},
    zoo::{Files, Kind, always, client, replace},
};

/// How long a server may take to notice by itself that a list can be fetched again, or has ended.
const BY_ITSELF: Duration = Duration::from_secs(120);
const ROOT: &str = "/zoo.crl";

/// A server whose list of the zoo's root comes from a distribution point.
struct Fetching {
    subject: Subject,
    lists: ListServer,
    runtime: Runtime,
}

impl Fetching {
    fn prepare() -> Self {
        let subject = Subject::prepare();
        replace(&subject.lists_file(), subject.own_list(&[]).as_bytes());
        Self { subject, lists: ListServer::start(), runtime: Runtime::new().expect("a runtime") }
    }

    /// Publishes a good list of the zoo's root (DER), which ends in so many seconds.
    fn publish(&self, seconds: i64) {
        let now = Clock::System.now();
        let time = (now - time::Duration::hours(1), now + time::Duration::seconds(seconds));
        let zoo = &self.subject.zoo;
        let list = zoo.root.list(&zoo.serials(&[Kind::Revoked]), time);
        self.lists.answer(ROOT, Answer::Content(list.der().to_vec()));
    }

    /// Starts the server with its own list as a file and these addresses.
    fn start(&mut self, urls: &[String], policy: &str, cache: Option<&Path>) {
        let sources = ["tls/lists.crl".to_owned()].into_iter().chain(urls.iter().cloned());
        let sources = sources.map(Value::from).collect();
        let mut tls = Table::new();
        tls.insert("crl".into(), Value::Array(sources));
        tls.insert("revocation".into(), policy.into());
        tls.insert("crl_refresh_seconds".into(), 10.into());
        if let Some(cache) = cache {
            tls.insert("crl_cache".into(), cache.to_str().expect("UTF-8").into());
        }
        self.subject.start(tls);
    }

    fn start_with_root(&mut self, policy: &str) {
        self.start(&[self.lists.url(ROOT)], policy, None);
    }

    /// Whether a client of ours with this is served, and for which reason the log says that it is not.
    fn ask(&self, kind: Kind) -> Option<String> {
        self.ask_with(self.subject.zoo.files(kind))
    }

    fn ask_with(&self, files: Option<&Files>) -> Option<String> {
        let log = self.subject.log_length();
        let (peer, version) = (Peer::Own, oracle::Version::Tls13);
        let target = self.subject.target();
        match self.runtime.block_on(peer.ask(&target, version, (Kind::Good, files))) {
            Seen::Served => None,
            // The list came between the handshake and the request.
            Seen::Refused { words, .. } if words.contains("no longer valid") => Some(words),
            Seen::Refused { words, .. } => {
                let refusals = self.subject.refusals(log, 1);
                let first = refusals.first().unwrap_or_else(|| panic!("not in the log: {words}"));
                Some(first.reason.clone())
            }
        }
    }

    #[track_caller]
    fn assert(&self, good: Option<&str>, revoked: Option<&str>) {
        assert_eq!(self.ask(Kind::Good).as_deref(), good);
        assert_eq!(self.ask(Kind::Revoked).as_deref(), revoked);
    }

    /// Whether a line of the log that is a warning or an error names the address.
    fn is_named(&self, url: &str, since: usize) -> bool {
        let lines = self.subject.log_since(since);
        lines.iter().any(|line| text(line, "level") != "INFO" && line.to_string().contains(url))
    }
}

#[test]
fn a_list_that_cannot_be_fetched_is_named_and_used_as_soon_as_it_can() {
    let mut fetching = Fetching::prepare();
    fetching.publish(86_400);
    fetching.lists.go_away();
    let log = fetching.subject.log_length();
    fetching.start_with_root("hard-fail");
    let unavailable = Some(oracle::LIST_UNAVAILABLE);
    fetching.assert(unavailable, unavailable);
    assert!(fetching.is_named(&fetching.lists.url(ROOT), log), "the log does not name the address");
    fetching.lists.come_back();
    eventually("the list is fetched", BY_ITSELF, || {
        fetching.ask(Kind::Good).is_none().then_some(())
    });
    fetching.assert(None, Some(oracle::CERTIFICATE_REVOKED));
}

#[test]
fn a_list_that_was_fetched_serves_until_its_end_and_no_longer() {
    let mut fetching = Fetching::prepare();
    fetching.publish(20);
    fetching.start_with_root("hard-fail");
    fetching.assert(None, Some(oracle::CERTIFICATE_REVOKED));
    fetching.lists.go_away();
    let log = fetching.subject.log_length();
    eventually("the list ends", BY_ITSELF, || {
        let refused = fetching.ask(Kind::Good)?;
        assert_eq!(refused, oracle::LIST_EXPIRED);
        Some(())
    });
    assert!(fetching.is_named(&fetching.lists.url(ROOT), log), "the log does not name the address");
    // What it revoked stays revoked.
    assert_eq!(fetching.ask(Kind::Revoked).as_deref(), Some(oracle::CERTIFICATE_REVOKED));
    fetching.publish(86_400);
    fetching.lists.come_back();
    eventually("the new list", BY_ITSELF, || fetching.ask(Kind::Good).is_none().then_some(()));
}

#[test]
fn soft_fail_lets_through_with_a_warning_what_no_list_could_be_fetched_for() {
    let mut fetching = Fetching::prepare();
    fetching.lists.go_away();
    fetching.start_with_root("soft-fail");
    let log = fetching.subject.log_length();
    fetching.assert(None, None);
    let thumbprint = &fetching.subject.zoo.files(Kind::Good).expect("files").thumbprint;
    let lines = fetching.subject.log_since(log);
    let warns = |line: &&serde_json::Value| {
        text(line, "level") == "WARN" && text(line, "thumbprint") == *thumbprint
    };
    let warning = lines.iter().find(warns).expect("a warning with the thumbprint");
    assert_eq!(text(warning, "reason"), oracle::LIST_UNAVAILABLE, "{warning}");
    assert!(fetching.subject.count(SOFT_FAILURES, &[oracle::LIST_UNAVAILABLE]) >= 2);
    fetching.publish(86_400);
    fetching.lists.come_back();
    eventually("the list is fetched", BY_ITSELF, || {
        (fetching.ask(Kind::Revoked)? == oracle::CERTIFICATE_REVOKED).then_some(())
    });
    fetching.assert(None, Some(oracle::CERTIFICATE_REVOKED));
}

/// A distribution point that answers anything but a list is as good as none, and holds nothing up.
#[test]
fn misbehaviour_of_a_distribution_point_is_survived_and_named() {
    let mut fetching = Fetching::prepare();
    fetching.publish(86_400);
    let elsewhere = ListServer::start();
    let other = fetching.subject.zoo.namesake.list(&[], always());
    elsewhere.answer("/elsewhere.crl", Answer::Content(other.der().to_vec()));
    let misbehaviour = [
        ("/missing.crl", Answer::Status(404)),
        ("/broken.crl", Answer::Status(500)),
        ("/moved.crl", Answer::Redirect(elsewhere.url("/elsewhere.crl"))),
        ("/endless.crl", Answer::Endless),
        ("/silent.crl", Answer::Silence),
        ("/garbage.crl", Answer::Garbage),
        ("/page.crl", Answer::Content(b"<html>The list is elsewhere</html>".to_vec())),
    ];
    let mut urls = Vec::new();
    for (path, answer) in misbehaviour {
        fetching.lists.answer(path, answer);
        urls.push(fetching.lists.url(path));
    }
    let log = fetching.subject.log_length();
    fetching.start(&urls, "hard-fail", None);
    let unavailable = Some(oracle::LIST_UNAVAILABLE);
    fetching.assert(unavailable, unavailable);
    for url in &urls {
        eventually(&format!("{url} is named"), BY_ITSELF, || {
            fetching.is_named(url, log).then_some(())
        });
    }
    assert_eq!(elsewhere.requests(), [""; 0], "a redirection was followed");

    // Beside them a good one is used.
    urls.push(fetching.lists.url(ROOT));
    fetching.start(&urls, "hard-fail", None);
    fetching.assert(None, Some(oracle::CERTIFICATE_REVOKED));
}

#[test]
fn a_restart_without_the_distribution_point_goes_on_with_what_is_cached() {
    let mut fetching = Fetching::prepare();
    let cache = fetching.subject.system.folder().join("crl-cache");
    let urls = [fetching.lists.url(ROOT)];
    fetching.publish(86_400);
    fetching.start(&urls, "hard-fail", Some(&cache));
    fetching.assert(None, Some(oracle::CERTIFICATE_REVOKED));
    fetching.lists.go_away();
    fetching.start(&urls, "hard-fail", Some(&cache));
    fetching.assert(None, Some(oracle::CERTIFICATE_REVOKED));

    // What somebody put there is believed as little as what comes over the network.
    let forged = zoo_lists(&fetching.subject.zoo, Lists::Namesake);
    for entry in fs::read_dir(&cache).expect("the cache") {
        fs::write(entry.expect("an entry").path(), &forged).expect("written");
    }
    fetching.start(&urls, "hard-fail", Some(&cache));
    let refused = fetching.ask(Kind::Good).expect("no list that can be believed");
    assert!(
        [oracle::LIST_UNTRUSTED, oracle::LIST_UNAVAILABLE].contains(&refused.as_str()),
        "{refused}"
    );
}

/// SECURITY-CASES row 13: the addresses are those of the settings alone.
#[test]
fn addresses_in_certificates_are_never_asked() {
    let mut fetching = Fetching::prepare();
    let attacker = ListServer::start();
    fetching.publish(86_400);
    fetching.start_with_root("hard-fail");
    let named = || {
        let mut params = client("Distribution point", "user");
        let uris = vec![attacker.url("/theirs.crl")];
        params.crl_distribution_points = vec![rcgen::CrlDistributionPoint { uris }];
        params
    };
    let zoo = &fetching.subject.zoo;
    let trusted = zoo.root.issue(named()).write(zoo.folder(), "trusted");
    let untrusted = zoo.other.issue(named()).write(zoo.folder(), "untrusted");
    assert_eq!(fetching.ask_with(Some(&trusted)), None);
    let refused = fetching.ask_with(Some(&untrusted));
    assert_eq!(refused.as_deref(), Some(oracle::UNTRUSTED_ISSUER));
    assert_eq!(attacker.requests(), [""; 0]);
}

//! The whole check, step by step.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use rustls::{AlertDescription, pki_types::ServerName};
use sso_core::{
    clock::Clock,
    tls::{Application, TlsError, TlsReason, TlsReloader, TlsSettings, TrustSettings},
};

use super::{
    Target,
    faults::of_client,
    handshake::{Agreed, Alpn, Fault, Shaken, Taken, shake},
    judgement::{Judged, Judges},
    network::{find, resolve},
    recorder::Seen,
    report::{Outcome, Report, Step, StepKind, Verdict},
    seen_name,
    versions::{Met, Versions, agreement, all_failed, failed},
};
use crate::certificates::{Description, Tree};

/// Authorities that are named in a sentence.
const NAMED_MAX: usize = 5;

/// The certificate that a client shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// PEM: the certificate, followed by its intermediates.
    pub certificate: PathBuf,
    /// Its private key; no other user may read the file.
    pub key: PathBuf,
    /// Where the key is encrypted.
    pub key_passphrase_file: Option<PathBuf>,
}

/// What to check, and as which client.
#[derive(Clone, Debug)]
pub struct Check {
    /// Where.
    pub target: Target,
    /// The name that the server's certificate has to have; `None`: the host of the target.
    pub name: Option<ServerName<'static>>,
    /// Whom the client trusts.
    pub trust: TrustSettings,
    /// What it shows; `None`: it has no certificate.
    pub identity: Option<Identity>,
    /// For each of: look-up, connection, every handshake.
    pub timeout: Duration,
}

impl Check {
    /// Goes through all steps. A server that is not in order is no error: the report says so.
    ///
    /// # Errors
    /// The CA file or a revocation list of this side is not usable. A client certificate that is not
    /// usable stands in the report.
    pub async fn run(&self) -> Result<Report, TlsError> {
        // Before anything is sent: without a CA file there is no check.
        TlsReloader::load_trust(&self.trust, Application::Http, Clock::System)?;
        let mut report = Report {
            address: self.target.to_string(),
            name: seen_name(self.name()),
            verdict: Verdict::Unreachable,
            reason: None,
            steps: Vec::new(),
            agreement: None,
            chain: Tree::default(),
            lists: Vec::new(),
        };
        self.go_through(&mut report).await?;
        if report.verdict != Verdict::Served && report.reason.is_none() {
            let failed = report.steps.iter().find(|step| step.outcome == Outcome::Failed);
            report.reason = failed.and_then(|step| step.reason);
        }
        Ok(report)
    }

    fn name(&self) -> &ServerName<'static> {
        self.name.as_ref().unwrap_or(self.target.server_name())
    }

    async fn go_through(&self, report: &mut Report) -> Result<(), TlsError> {
        let addresses = match resolve(&self.target, self.timeout).await {
            Ok(addresses) => addresses,
            Err(words) => {
                report.steps.push(
                    Step::failed(StepKind::Resolve, None, words)
                        .advising("check the name, and the name servers of this machine"),
                );
                return Ok(());
            }
        };
        let texts: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
        report.steps.push(Step::ok(StepKind::Resolve, texts.join(", ")));
        let address = match find(&addresses, self.timeout).await {
            Ok(address) => address,
            Err(words) => {
                report.steps.push(
                    Step::failed(StepKind::Connect, None, all_failed(&words)).advising(
                        "check that the server runs, the port, and the firewalls on the way",
                    ),
                );
                return Ok(());
            }
        };
        report.steps.push(Step::ok(StepKind::Connect, address.to_string()));
        let versions = Versions::of(address, self.name(), self.timeout).await;
        let minimum = self.trust.minimum_version;
        report.steps.extend(versions.steps(minimum));
        let Some(met) = versions.used(minimum).or(versions.any()) else {
            report.verdict = versions.newest.told().verdict;
            return Ok(());
        };
        report.chain = Tree::build(&met.seen.chain);
        report.agreement = met.shaken.agreed.map(agreement);
        let certificate_step = self.certificate_step(met, &report.chain);
        let protocol_at = report.steps.len();
        report.steps.push(certificate_step);

        let client = Client::load(self, application(met.shaken.agreed))?;
        client.reloader.fetch_lists().await;
        let judges = Judges::new(&self.trust, Arc::clone(&client.reloader)).await?;
        let judgement = judges.judge(&met.seen.chain, self.name(), Clock::System.now());
        report.steps.extend(judgement.steps);
        report.lists = judgement.lists;
        let in_common = versions.used(minimum).is_some();
        let (step, verdict, agreed) = match (in_common, &judgement.verdict) {
            (true, Ok(())) => self.show(address, &client, &met.seen).await,
            (in_common, judged) => {
                report.reason = match (in_common, judged) {
                    (true, Err((reason, _))) => Some(*reason),
                    (false, _) => Some(TlsReason::ProtocolVersion),
                    (true, Ok(())) => None,
                };
                (not_shown(&client, &met.seen, in_common, judged), Verdict::Refused, None)
            }
        };
        let agreed = agreed.or(met.shaken.agreed);
        if let Some(agreed) = agreed {
            report.agreement = Some(agreement(agreed));
            report.steps.insert(protocol_at, protocol_step(agreed));
        }
        report.steps.push(step);
        report.verdict = verdict;
        Ok(())
    }

    fn certificate_step(&self, met: &Met, tree: &Tree) -> Step {
        let own = met.seen.chain.first().map(Description::read);
        let words = match own {
            Some(Ok(own)) => format!("'{}', issued by '{}'", own.subject, own.issuer),
            Some(Err(words)) => {
                let words = format!("what the server shows {words}");
                let reason = Some(TlsReason::CertificateUnusable);
                return Step::failed(StepKind::Certificate, reason, words);
            }
            None => "the server shows none".to_owned(),
        };
        match tree.unreadable.first() {
            Some(what) => Step::warning(
                StepKind::Certificate,
                format!("{words}; {what}"),
                "let the server send the certificates of its chain and nothing else",
            ),
            None => Step::ok(StepKind::Certificate, words),
        }
    }

    /// The handshake of a real client, of the other kind where the server turns out to be of that.
    async fn shake(&self, address: SocketAddr, client: &Client) -> Shaken {
        let shake = |tls: &TlsReloader| {
            shake(address, self.name().clone(), tls.client_config(), self.timeout)
        };
        let shaken = shake(&client.reloader).await;
        if !matches!(shaken.end, Err(Fault::Alert(AlertDescription::NoApplicationProtocol))) {
            return shaken;
        }
        match Client::load(self, Application::Http) {
            Ok(other) => {
                other.reloader.fetch_lists().await;
                shake(&other.reloader).await
            }
            Err(_) => shaken,
        }
    }

    /// What comes of the handshake of a real client.
    async fn show(
        &self,
        address: SocketAddr,
        client: &Client,
        seen: &Seen,
    ) -> (Step, Verdict, Option<Agreed>) {
        const STEP: StepKind = StepKind::ClientCertificate;
        if let Some(problem) = &client.unusable {
            return (unusable(problem), Verdict::Refused, None);
        }
        let shaken = self.shake(address, client).await;
        let shown = self.identity.is_some();
        let asked = seen.asked.is_some();
        match shaken.end {
            Ok(taken) => (served(seen, client, taken), Verdict::Served, shaken.agreed),
            Err(fault) => {
                let told = of_client(&fault, shown && asked, asked);
                let step = failed(STEP, with_wish(told.words.clone(), &told.reason, seen), &told);
                (step, told.verdict, shaken.agreed)
            }
        }
    }
}

/// What a server is spoken to as: a client of its kind. Where it broke off before that was agreed on, it
/// is first taken for one of ours.
fn application(agreed: Option<Agreed>) -> Application {
    match agreed.map(|agreed| agreed.alpn) {
        Some(Some(Alpn::Http2)) | None => Application::Grpc,
        Some(Some(Alpn::Http1) | None) => Application::Http,
    }
}

/// The client whose place the check takes.
struct Client {
    reloader: Arc<TlsReloader>,
    /// Its certificate, in words.
    certificate: Option<String>,
    /// What is wrong with its own files; the reloader then has none.
    unusable: Option<TlsError>,
}

impl Client {
    fn load(check: &Check, application: Application) -> Result<Self, TlsError> {
        let without = || TlsReloader::load_trust(&check.trust, application, Clock::System);
        let Some(identity) = &check.identity else {
            return Ok(Self { reloader: without()?, certificate: None, unusable: None });
        };
        let settings = TlsSettings {
            key_passphrase_file: identity.key_passphrase_file.clone(),
            ..TlsSettings::with_trust(&identity.certificate, &identity.key, check.trust.clone())
        };
        let file = identity.certificate.display().to_string();
        match TlsReloader::load_for(&settings, application, Clock::System) {
            Ok(reloader) => Ok(Self { reloader, certificate: Some(file), unusable: None }),
            Err(problem) => {
                Ok(Self { reloader: without()?, certificate: Some(file), unusable: Some(problem) })
            }
        }
    }
}

fn protocol_step(agreed: Agreed) -> Step {
    let shown = agreement(agreed);
    let group =
        shown.key_exchange.map_or_else(String::new, |group| format!(", key exchange {group}"));
    let words = format!("{}, {}{group}", shown.version, shown.cipher_suite);
    match shown.application_protocol {
        Some(alpn) => Step::ok(StepKind::Protocol, format!("{words}, application protocol {alpn}")),
        None => Step::warning(
            StepKind::Protocol,
            format!("{words}, no application protocol"),
            "HTTP/1.1 clients go on, gRPC clients need a server that offers h2 by ALPN",
        ),
    }
}

fn unusable(problem: &TlsError) -> Step {
    Step::failed(StepKind::ClientCertificate, None, format!("not usable: {problem}"))
        .advising("a client would not even start with these files; the server was shown none")
}

fn not_shown(client: &Client, seen: &Seen, in_common: bool, judged: &Judged) -> Step {
    if let Some(problem) = &client.unusable {
        return unusable(problem);
    }
    let asked = if seen.asked.is_some() { "asked for" } else { "not asked for" };
    let why = match (in_common, judged) {
        (false, _) => "the two have no version in common",
        (true, _) => "a client shows nothing to a server that it does not trust",
    };
    Step::not_done(StepKind::ClientCertificate, format!("{asked}; none was shown: {why}"))
}

fn served(seen: &Seen, client: &Client, taken: Taken) -> Step {
    let words = match (&seen.asked, &client.certificate) {
        (None, _) => "not asked for; the server takes the client without one".to_owned(),
        (Some(_), Some(file)) => format!("asked for, and that of {file} is accepted"),
        (Some(_), None) => {
            "asked for, but not required: the server takes the client without one".to_owned()
        }
    };
    let how = match taken {
        Taken::Finished => "it ended the handshake",
        Taken::Greeted => "it went on after the handshake",
        Taken::ClosedInPeace => "it closed in peace after the handshake",
    };
    Step::ok(StepKind::ClientCertificate, format!("{words} ({how})"))
}

/// With the authorities that the server wants, where the one of the client is not among them or there
/// is none.
fn with_wish(words: String, reason: &Option<TlsReason>, seen: &Seen) -> String {
    let matters =
        matches!(reason, Some(TlsReason::UntrustedIssuer | TlsReason::NoClientCertificate));
    let named = seen.asked.as_deref().unwrap_or_default();
    if !matters || named.is_empty() {
        return words;
    }
    let list: Vec<_> = named.iter().take(NAMED_MAX).map(|name| format!("'{name}'")).collect();
    let more = if named.len() > NAMED_MAX { " and others" } else { "" };
    format!("{words}; it takes certificates of {}{more}", list.join(", "))
}

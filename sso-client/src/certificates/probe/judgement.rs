//! What a client of the product makes of the certificates that a server shows, taken apart into steps.
//!
//! The verdict is that of the verifier which every client of the product has. Looking at single
//! properties only adds what would come next; it never overrules the verdict.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use sso_core::{
    clock::Clock,
    tls::{Application, RevocationPolicy, TlsError, TlsReason, TlsReloader, TrustSettings},
};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    report::{Step, StepKind, UsedList},
    seen_name,
};
use crate::certificates::{Description, Position, Signature, Tree};

/// From so many days before its end on, a certificate is to be renewed.
const RENEW_DAYS: i64 = 30;

/// A verdict of the verifier of clients: why not, and in words.
pub(super) type Judged = Result<(), (TlsReason, String)>;

/// The verifier that a client uses, and its like under other policies.
pub(super) struct Judges {
    settings: TrustSettings,
    actual: Arc<TlsReloader>,
    /// Looks at no revocation list.
    without_lists: Arc<TlsReloader>,
    /// Where the policy is soft-fail: refuses what that lets through.
    strict: Option<Arc<TlsReloader>>,
}

/// What a client makes of a server's certificates.
pub(super) struct Judgement {
    pub(super) verdict: Judged,
    pub(super) steps: Vec<Step>,
    pub(super) lists: Vec<UsedList>,
}

/// The settings that look at no revocation list.
fn without_lists(settings: &TrustSettings) -> TrustSettings {
    TrustSettings { crl: Vec::new(), revocation: None, ..settings.clone() }
}

impl Judges {
    /// Besides `actual`, which a client made from the same `settings` uses.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub(super) async fn new(
        settings: &TrustSettings,
        actual: Arc<TlsReloader>,
    ) -> Result<Self, TlsError> {
        let load = |settings: &TrustSettings| {
            TlsReloader::load_trust(settings, Application::Http, Clock::System)
        };
        let strict = match settings.revocation_policy() {
            RevocationPolicy::SoftFail => {
                let revocation = Some(RevocationPolicy::HardFail);
                let strict = load(&TrustSettings { revocation, ..settings.clone() })?;
                strict.fetch_lists().await;
                Some(strict)
            }
            RevocationPolicy::HardFail | RevocationPolicy::Off => None,
        };
        let without_lists = load(&without_lists(settings))?;
        Ok(Self { settings: settings.clone(), actual, without_lists, strict })
    }

    /// Judges the certificates `chain`, the server's own first.
    pub(super) fn judge(
        &self,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: OffsetDateTime,
    ) -> Judgement {
        let verdict = self.actual.judge_server(chain, name);
        let plain = match &verdict {
            Ok(()) => Ok(()),
            Err(_) => self.without_lists.judge_server(chain, name),
        };
        let tree = Tree::build(chain);
        let facts = Facts { judges: self, plain: &plain, tree: &tree, chain, name, now };
        let steps = vec![
            facts.chain(),
            facts.name(),
            facts.validity(),
            facts.purpose(),
            facts.revocation(&verdict),
        ];
        Judgement { verdict, steps, lists: self.lists() }
    }

    fn lists(&self) -> Vec<UsedList> {
        let lists = self.actual.status().lists.into_iter();
        lists
            .map(|list| UsedList {
                source: list.source,
                issuer: list.issuer,
                this_update: list.this_update,
                next_update: list.next_update,
                problem: list.problem,
            })
            .collect()
    }
}

/// The step that a reason belongs to.
#[expect(clippy::wildcard_enum_match_arm, reason = "all other faults are those of the chain")]
fn step_of(reason: TlsReason) -> StepKind {
    match reason {
        TlsReason::WrongName => StepKind::Name,
        TlsReason::CertificateExpired | TlsReason::CertificateNotYetValid => StepKind::Validity,
        TlsReason::WrongPurpose => StepKind::Purpose,
        TlsReason::CertificateRevoked
        | TlsReason::RevocationListUnavailable
        | TlsReason::RevocationListExpired
        | TlsReason::RevocationListUntrusted => StepKind::Revocation,
        _ => StepKind::Chain,
    }
}

struct Facts<'f> {
    judges: &'f Judges,
    /// The verdict without regard to revocation.
    plain: &'f Judged,
    tree: &'f Tree,
    chain: &'f [CertificateDer<'f>],
    name: &'f ServerName<'f>,
    now: OffsetDateTime,
}

impl Facts<'_> {
    /// What the verifier says, where it is about this step.
    fn refusal(&self, step: StepKind) -> Option<(TlsReason, &str)> {
        match self.plain {
            Err((reason, words)) if step_of(*reason) == step => Some((*reason, words)),
            _ => None,
        }
    }

    fn chain(&self) -> Step {
        let ca = self.judges.settings.ca.display();
        if let Some((reason, words)) = self.refusal(StepKind::Chain) {
            let step = Step::failed(StepKind::Chain, Some(reason), refused(words));
            return match self.open_end() {
                Some(issuer) if reason == TlsReason::UntrustedIssuer => step.advising(format!(
                    "the certificates that the server sends end at one issued by '{issuer}', which \
                     is not in {ca}: if that is an intermediate authority, let the server send its \
                     certificate along; else add the authority to the file, or name the right one"
                )),
                _ => step,
            };
        }
        if let Err((reason, _)) = self.plain {
            let other = step_of(*reason).as_str();
            return Step::not_done(StepKind::Chain, format!("not told apart: {other} fails"));
        }
        let sent = match self.chain.len() {
            1 => "one certificate is sent; it leads".to_owned(),
            count => format!("{count} certificates are sent; they lead"),
        };
        Step::ok(StepKind::Chain, format!("{sent} to an authority in {ca}"))
    }

    /// The issuer that is missing above the certificates shown.
    fn open_end(&self) -> Option<&str> {
        let mut open = self.tree.certificates.iter();
        let open = open.find(|entry| entry.signature == Signature::IssuerMissing)?;
        (open.position != Position::Root).then_some(open.certificate.issuer.as_str())
    }

    fn name(&self) -> Step {
        let made_for = || match self.own() {
            Some(own) if own.alternative_names.is_empty() => "for no name at all".to_owned(),
            Some(own) => format!("for {}", own.alternative_names.join(", ")),
            None => "for names that cannot be read".to_owned(),
        };
        let name = seen_name(self.name);
        if self.refusal(StepKind::Name).is_some() || (self.plain.is_err() && !self.has_name()) {
            return Step::failed(
                StepKind::Name,
                Some(TlsReason::WrongName),
                format!("the certificate is not made for {name} but {}", made_for()),
            );
        }
        Step::ok(StepKind::Name, format!("the certificate is made {}", made_for()))
    }

    fn has_name(&self) -> bool {
        let parsed = self
            .chain
            .first()
            .and_then(|own| rustls::server::ParsedCertificate::try_from(own).ok());
        parsed.is_some_and(|own| rustls::client::verify_server_name(&own, self.name).is_ok())
    }

    fn own(&self) -> Option<&Description> {
        let own = self.tree.certificates.iter().find(|entry| entry.index == 0)?;
        Some(&own.certificate)
    }

    fn validity(&self) -> Step {
        let sent = || self.tree.certificates.iter().map(|entry| &entry.certificate);
        let told = |reason, certificate: &Description, words: String| {
            let words = format!("'{}' {words}", certificate.subject);
            Step::failed(StepKind::Validity, Some(reason), words)
        };
        if self.plain.is_err() {
            if let Some(over) = sent().find(|it| it.not_after < self.now) {
                let words = format!("has expired: it was valid until {}", shown(over.not_after));
                return told(TlsReason::CertificateExpired, over, words);
            }
            if let Some(early) = sent().find(|it| self.now < it.not_before) {
                let words = format!("is not valid yet: it starts at {}", shown(early.not_before));
                return told(TlsReason::CertificateNotYetValid, early, words);
            }
        }
        // The root in the CA file, which the server does not send.
        if let Some((reason, words)) = self.refusal(StepKind::Validity) {
            return Step::failed(StepKind::Validity, Some(reason), refused(words));
        }
        let Some(first) = sent().min_by_key(|it| it.not_after) else {
            return Step::not_done(StepKind::Validity, "no certificate that can be read");
        };
        let left = first.not_after - self.now;
        let words = format!(
            "all are valid; '{}' ends first, on {} ({} left)",
            first.subject,
            shown(first.not_after),
            span(left)
        );
        match left < Duration::days(RENEW_DAYS) {
            true => Step::warning(StepKind::Validity, words, "renew it soon"),
            false => Step::ok(StepKind::Validity, words),
        }
    }

    fn purpose(&self) -> Step {
        let Some(own) = self.own() else {
            return Step::not_done(StepKind::Purpose, "no certificate that can be read");
        };
        if let Some((reason, words)) = self.refusal(StepKind::Purpose) {
            return Step::failed(StepKind::Purpose, Some(reason), refused(words));
        }
        if self.plain.is_err() && !own.may_serve() {
            let words =
                format!("the certificate is not made for servers: {}", own.usages.join(", "));
            return Step::failed(StepKind::Purpose, Some(TlsReason::WrongPurpose), words);
        }
        let words = match own.usages.is_empty() {
            true => "the certificate names no purpose, so it may be used by servers too",
            false => "the certificate is made for servers",
        };
        Step::ok(StepKind::Purpose, words)
    }

    fn revocation(&self, verdict: &Judged) -> Step {
        const STEP: StepKind = StepKind::Revocation;
        let judges = self.judges;
        if let Err((reason, words)) = verdict
            && step_of(*reason) == STEP
        {
            return Step::failed(STEP, Some(*reason), refused(words));
        }
        let policy = judges.settings.revocation_policy();
        if policy == RevocationPolicy::Off {
            let (words, advice) = match judges.settings.crl.is_empty() {
                true => ("not checked: no revocation list is named", "name one with --crl"),
                false => ("not checked: the policy is off", "use --revocation hard-fail"),
            };
            return Step::warning(STEP, words, advice);
        }
        if self.plain.is_err() {
            return Step::not_done(STEP, "judged only where everything else is in order");
        }
        let strict = judges.strict.as_ref().map(|it| it.judge_server(self.chain, self.name));
        if let Some(Err((reason, words))) = strict {
            let words =
                format!("{}; let through, because the policy is soft-fail", refused(&words));
            return Step { reason: Some(reason), ..Step::warning(STEP, words, reason.advice()) };
        }
        Step::ok(STEP, format!("no certificate of the chain is revoked ({policy})"))
    }
}

/// What the verifier says of "it".
fn refused(words: &str) -> String {
    format!("the certificate is refused: {words}")
}

fn shown(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}

/// Days, or hours where it is less than two days.
fn span(left: Duration) -> String {
    match left >= Duration::days(2) {
        true => format!("{} days", left.whole_days()),
        false => format!("{} hours", left.whole_hours()),
    }
}

//! Which versions of TLS a server speaks, and what it shows in them.

use std::{net::SocketAddr, time::Duration};

use rustls::{
    NamedGroup, ProtocolVersion, SupportedProtocolVersion,
    pki_types::{CertificateDer, ServerName},
    version::{TLS12, TLS13},
};
use sso_core::tls::{TlsReason, TlsVersion};
use tokio::time::Instant;

use super::{
    Target,
    faults::{Told, of_server},
    handshake::{Agreed, Alpn, Fault, Shaken, shake},
    network::{find, resolve},
    old_versions::{Answer, OldVersion, offer},
    recorder::{Seen, recording_client},
    report::{Agreement, Step, StepKind, Verdict},
};
use crate::certificates::Tree;

/// What a server shows to anybody who connects.
#[derive(Clone, Debug)]
pub struct Look {
    /// What was agreed on; `None` when the server broke off after it had shown its certificates.
    pub agreement: Option<Agreement>,
    /// Its certificates. Nothing says that they are to be trusted.
    pub chain: Tree,
    /// The same as they were sent, the server's own first.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Whether it asks for a client certificate.
    pub asks_for_certificate: bool,
}

/// Why there is nothing to be seen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address}: {words}")]
pub struct LookError {
    address: String,
    words: String,
    /// What to do, where that is known.
    pub advice: Option<String>,
    /// Why, where that has a name.
    pub reason: Option<TlsReason>,
    /// Whether the server is not to be talked with at all now; else what answers has no certificate.
    pub unreachable: bool,
}

impl Look {
    /// Connects without a certificate and looks at what the server at `target` shows under `name`.
    /// `timeout` is for each of: look-up, connection, handshake in TLS 1.3, in TLS 1.2.
    ///
    /// # Errors
    /// See [`LookError`].
    pub async fn at(
        target: &Target,
        name: Option<&ServerName<'static>>,
        timeout: Duration,
    ) -> Result<Self, LookError> {
        let error = |told: Told| LookError {
            address: target.to_string(),
            words: told.words,
            advice: told.advice.or(told.reason.map(TlsReason::advice)).map(str::to_owned),
            reason: told.reason,
            unreachable: told.verdict == Verdict::Unreachable,
        };
        let unreachable =
            |words| Told { reason: None, words, advice: None, verdict: Verdict::Unreachable };
        let name = name.unwrap_or(target.server_name());
        let addresses =
            resolve(target, timeout).await.map_err(|words| error(unreachable(words)))?;
        let address = find(&addresses, timeout)
            .await
            .map_err(|failed| error(unreachable(all_failed(&failed))))?;
        let newest = look_in(&TLS13, address, name, timeout).await;
        let met = match newest.is_spoken() || newest.is_hopeless() {
            true => newest,
            false => match look_in(&TLS12, address, name, timeout).await {
                older if older.is_spoken() => older,
                _ => newest,
            },
        };
        if met.seen.chain.is_empty() {
            return Err(error(met.told()));
        }
        Ok(Self {
            agreement: met.shaken.agreed.map(agreement),
            chain: Tree::build(&met.seen.chain),
            asks_for_certificate: met.seen.asked.is_some(),
            certificates: met.seen.chain,
        })
    }
}

/// Every address with what is wrong with it.
pub(super) fn all_failed(failed: &[(SocketAddr, String)]) -> String {
    let texts: Vec<_> =
        failed.iter().map(|(address, words)| format!("{address}: {words}")).collect();
    texts.join("; ")
}

/// A handshake in one version that judged nothing.
#[derive(Debug)]
pub(super) struct Met {
    pub(super) shaken: Shaken,
    pub(super) seen: Seen,
}

impl Met {
    /// Whether the server speaks the version: it went as far as showing a certificate.
    pub(super) fn is_spoken(&self) -> bool {
        !self.seen.chain.is_empty() || self.shaken.agreed.is_some()
    }

    /// Whether no other version would do better.
    pub(super) fn is_hopeless(&self) -> bool {
        matches!(
            self.shaken.end,
            Err(Fault::NotTls(_) | Fault::Silent { shaken: false } | Fault::NoConnection(_))
        )
    }

    /// Why the server does not speak the version.
    pub(super) fn told(&self) -> Told {
        match &self.shaken.end {
            Err(fault) => of_server(fault),
            Ok(_) => Told {
                reason: Some(TlsReason::Other),
                words: "the server shows no certificate".to_owned(),
                advice: None,
                verdict: Verdict::Refused,
            },
        }
    }
}

/// Shakes hands in one version, without a certificate and without judging.
pub(super) async fn look_in(
    version: &'static SupportedProtocolVersion,
    address: SocketAddr,
    name: &ServerName<'static>,
    timeout: Duration,
) -> Met {
    let (config, record) = match recording_client(version) {
        Ok(made) => made,
        Err(error) => {
            let shaken = Shaken { agreed: None, end: Err(Fault::Tls(error)) };
            return Met { shaken, seen: Seen::default() };
        }
    };
    let shaken = shake(address, name.clone(), config, timeout).await;
    Met { shaken, seen: record.read() }
}

/// What the versions of a server are.
#[derive(Debug)]
pub(super) struct Versions {
    pub(super) newest: Met,
    /// Not looked at where what answers is no TLS, or nothing answers.
    pub(super) older: Option<(Met, [Answer; 2])>,
}

impl Versions {
    pub(super) async fn of(
        address: SocketAddr,
        name: &ServerName<'static>,
        timeout: Duration,
    ) -> Self {
        let newest = look_in(&TLS13, address, name, timeout).await;
        if newest.is_hopeless() {
            return Self { newest, older: None };
        }
        let deadline = Instant::now() + timeout;
        let [v1_1, v1_0] = OldVersion::ALL;
        let (second, v1_1, v1_0) = tokio::join!(
            look_in(&TLS12, address, name, timeout),
            offer(address, name, v1_1, deadline),
            offer(address, name, v1_0, deadline),
        );
        Self { newest, older: Some((second, [v1_1, v1_0])) }
    }

    /// The handshake that a client of this minimum version would make; `None` when there is none in
    /// common.
    pub(super) fn used(&self, minimum: TlsVersion) -> Option<&Met> {
        let older = self.older.as_ref().map(|(older, _)| older);
        [Some(&self.newest), older.filter(|_| minimum == TlsVersion::V1_2)]
            .into_iter()
            .flatten()
            .find(|met| met.is_spoken())
    }

    /// Any handshake that got as far as the certificates.
    pub(super) fn any(&self) -> Option<&Met> {
        self.used(TlsVersion::V1_2)
    }

    /// A step for each version that was tried.
    pub(super) fn steps(&self, minimum: TlsVersion) -> Vec<Step> {
        let mut steps = vec![self.newest_step(minimum)];
        if let Some((second, answers)) = &self.older {
            steps.push(self.second_step(second, minimum));
            let kinds = [StepKind::Tls11, StepKind::Tls10];
            let old = kinds.into_iter().zip(OldVersion::ALL).zip(answers);
            steps.extend(old.map(|((kind, version), answer)| old_step(kind, version, answer)));
        }
        steps
    }

    fn newest_step(&self, minimum: TlsVersion) -> Step {
        const STEP: StepKind = StepKind::Tls13;
        if self.newest.is_spoken() {
            return Step::ok(STEP, "offered");
        }
        let told = self.newest.told();
        let words = format!("not offered: {}", told.words);
        match self.any() {
            // The server is in order, and too old.
            Some(_) if minimum == TlsVersion::V1_3 => {
                Step::failed(STEP, Some(TlsReason::ProtocolVersion), words)
            }
            Some(_) => Step::warning(STEP, words, "let the server speak TLS 1.3"),
            None => failed(STEP, words, &told),
        }
    }

    fn second_step(&self, second: &Met, minimum: TlsVersion) -> Step {
        const STEP: StepKind = StepKind::Tls12;
        if second.is_spoken() {
            return Step::ok(
                STEP,
                match minimum {
                    TlsVersion::V1_3 => {
                        "offered; not used, because this side has minimum_version = \"1.3\""
                    }
                    TlsVersion::V1_2 => "offered; used by those who do not speak TLS 1.3",
                },
            );
        }
        let told = second.told();
        let words = format!("not offered: {}", told.words);
        match self.newest.is_spoken() {
            true => Step::ok(STEP, words),
            false => failed(STEP, words, &told),
        }
    }
}

pub(super) fn failed(step: StepKind, words: String, told: &Told) -> Step {
    let step = Step::failed(step, told.reason, words);
    match told.advice {
        Some(advice) => step.advising(advice),
        None => step,
    }
}

fn old_step(step: StepKind, version: OldVersion, answer: &Answer) -> Step {
    let name = version.name();
    match answer {
        Answer::Accepted(agreed) if *agreed == version.number() => Step::warning(
            step,
            format!("ACCEPTED: the server goes on in {name}, which is broken"),
            "switch it off at the server: nothing older than TLS 1.2 is safe",
        ),
        Answer::Accepted(agreed) => {
            let agreed = version_name(ProtocolVersion::from(*agreed));
            Step::ok(step, format!("refused: the server answers in {agreed}"))
        }
        Answer::Refused(alert) => {
            let alert = super::faults::alert_name((*alert).into());
            Step::ok(step, format!("refused ({alert})"))
        }
        Answer::Closed => Step::ok(step, "refused: the server closes the connection"),
        Answer::Silent => Step::warning(
            step,
            "not known: the server does not answer in time",
            "a server that refuses should say so at once",
        ),
        Answer::NotTls(_) => {
            Step::warning(step, "not known: the answer is not one of TLS", "look into its log")
        }
        Answer::Broken(words) => {
            Step::warning(step, format!("not known: {words}"), "try again later")
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "versions without a name are shown as numbers")]
pub(super) fn version_name(version: ProtocolVersion) -> String {
    match version {
        ProtocolVersion::TLSv1_3 => "TLS 1.3".to_owned(),
        ProtocolVersion::TLSv1_2 => "TLS 1.2".to_owned(),
        ProtocolVersion::TLSv1_1 => "TLS 1.1".to_owned(),
        ProtocolVersion::TLSv1_0 => "TLS 1.0".to_owned(),
        ProtocolVersion::SSLv3 => "SSL 3.0".to_owned(),
        other => format!("version {:#06x}", u16::from(other)),
    }
}

/// What was agreed on, in the words of the standards.
pub(super) fn agreement(agreed: Agreed) -> Agreement {
    Agreement {
        version: version_name(agreed.version),
        cipher_suite: agreed.cipher_suite.as_str().unwrap_or("unknown").to_owned(),
        key_exchange: agreed.key_exchange.map(group_name),
        application_protocol: agreed.alpn.map(|alpn| match alpn {
            Alpn::Http2 => "h2".to_owned(),
            Alpn::Http1 => "http/1.1".to_owned(),
        }),
    }
}

fn group_name(group: NamedGroup) -> String {
    group.as_str().map_or_else(|| format!("group {:#06x}", u16::from(group)), str::to_owned)
}

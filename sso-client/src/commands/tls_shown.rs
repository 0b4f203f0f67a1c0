//! How certificates and revocation lists of a program are shown, wherever it tells of them.

use serde::Serialize;
use sso_client::v1::{
    ReloadTlsResponse, RevocationList, RevocationPolicy, TlsCertificate, TlsCertificateRole,
    TlsStatus,
};

use super::shown::{or_dash, time};
use crate::{failure::Failure, output::Output};

/// Letters of a thumbprint that tell certificates apart at a glance.
const GLANCE: usize = 16;

#[derive(Debug, Serialize)]
pub(super) struct TlsDocument {
    number: u64,
    loaded_at: Option<String>,
    failed_at: Option<String>,
    failure: Option<String>,
    minimum_version: String,
    client_certificate_required: bool,
    revocation: &'static str,
    certificates: Vec<CertificateDocument>,
    lists: Vec<ListDocument>,
    pub(super) warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct CertificateDocument {
    role: &'static str,
    subject: String,
    issuer: String,
    serial: String,
    thumbprint_sha1: String,
    thumbprint_sha256: String,
    not_before: Option<String>,
    not_after: Option<String>,
}

#[derive(Debug, Serialize)]
struct ListDocument {
    source: String,
    issuer: Option<String>,
    this_update: Option<String>,
    next_update: Option<String>,
    fetched_at: Option<String>,
    problem: Option<String>,
}

pub(super) fn document(status: TlsStatus) -> TlsDocument {
    TlsDocument {
        loaded_at: time(status.loaded_at.as_ref()),
        failed_at: time(status.failed_at.as_ref()),
        failure: filled(status.failure),
        revocation: policy(status.revocation),
        certificates: status.certificates.into_iter().map(certificate).collect(),
        lists: status.lists.into_iter().map(list).collect(),
        number: status.number,
        minimum_version: status.minimum_version,
        client_certificate_required: status.client_certificate_required,
        warnings: status.warnings,
    }
}

fn certificate(one: TlsCertificate) -> CertificateDocument {
    CertificateDocument {
        role: match TlsCertificateRole::try_from(one.role) {
            Ok(TlsCertificateRole::Own) => "own",
            Ok(TlsCertificateRole::Intermediate) => "intermediate",
            Ok(TlsCertificateRole::Authority) => "authority",
            Ok(TlsCertificateRole::Unspecified) | Err(_) => "unknown",
        },
        not_before: time(one.not_before.as_ref()),
        not_after: time(one.not_after.as_ref()),
        subject: one.subject,
        issuer: one.issuer,
        serial: one.serial,
        thumbprint_sha1: one.thumbprint_sha1,
        thumbprint_sha256: one.thumbprint_sha256,
    }
}

fn list(one: RevocationList) -> ListDocument {
    ListDocument {
        this_update: time(one.this_update.as_ref()),
        next_update: time(one.next_update.as_ref()),
        fetched_at: time(one.fetched_at.as_ref()),
        issuer: filled(one.issuer),
        problem: filled(one.problem),
        source: one.source,
    }
}

/// As the settings write it.
fn policy(policy: i32) -> &'static str {
    match RevocationPolicy::try_from(policy) {
        Ok(RevocationPolicy::HardFail) => "hard-fail",
        Ok(RevocationPolicy::SoftFail) => "soft-fail",
        Ok(RevocationPolicy::Off) => "off",
        Ok(RevocationPolicy::Unspecified) | Err(_) => "unknown",
    }
}

fn filled(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// A few rows for the status of the program.
pub(super) fn pairs(tls: &TlsDocument) -> Vec<(&'static str, String)> {
    let client = if tls.client_certificate_required { "required" } else { "optional" };
    let own = tls.certificates.iter().find(|it| it.role == "own").map(|own| {
        let thumbprint: String = own.thumbprint_sha256.chars().take(GLANCE).collect();
        format!("{}, until {}, SHA-256 {thumbprint}…", own.subject, at(&own.not_after))
    });
    let mut pairs = vec![
        ("certificate", or_dash(&own.unwrap_or_default())),
        ("TLS", format!("{} or newer, client certificate {client}", tls.minimum_version)),
        ("TLS files", format!("loaded {} (number {})", at(&tls.loaded_at), tls.number)),
        ("revocation", revocation(tls)),
    ];
    if let Some(failure) = &tls.failure {
        pairs.push(("not reloaded", format!("{}: {failure}", at(&tls.failed_at))));
    }
    pairs
}

fn revocation(tls: &TlsDocument) -> String {
    let lists = tls.lists.iter().map(|list| match (&list.problem, &list.next_update) {
        (Some(problem), _) => format!("{}: {problem}", list.source),
        (None, Some(until)) => format!("{} until {until}", list.source),
        (None, None) => list.source.clone(),
    });
    let parts: Vec<_> = std::iter::once(tls.revocation.to_owned()).chain(lists).collect();
    parts.join(", ")
}

fn at(time: &Option<String>) -> String {
    or_dash(time.as_deref().unwrap_or_default())
}

#[derive(Debug, Serialize)]
struct ReloadDocument {
    name: String,
    tls: TlsDocument,
}

/// What a program has in use after it loaded it again.
pub(super) fn reloaded(answer: ReloadTlsResponse, output: &Output) -> Result<(), Failure> {
    let tls = document(answer.tls.unwrap_or_default());
    let document = ReloadDocument { name: answer.name, tls };
    output.document(&document, |output| show(&document, output))?;
    warn(&document.tls, output);
    Ok(())
}

/// Tells people of the warnings; a document has them already.
pub(super) fn warn(tls: &TlsDocument, output: &Output) {
    if !output.is_json() {
        for warning in &tls.warnings {
            output.warn(None, warning);
        }
    }
}

fn show(document: &ReloadDocument, output: &Output) -> Result<(), Failure> {
    let tls = &document.tls;
    let mut all = vec![("reloaded", document.name.clone())];
    let own = |name: &str| ["certificate", "revocation"].contains(&name);
    all.extend(pairs(tls).into_iter().filter(|(name, _)| !own(name)));
    all.push(("revocation", tls.revocation.to_owned()));
    output.pairs(all)?;
    output.line("")?;
    let header = ["CERTIFICATE", "ROLE", "UNTIL", "SERIAL", "SHA-256"];
    output.table(&header, tls.certificates.iter().map(certificate_row))?;
    if tls.lists.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let header = ["REVOCATION LIST", "ISSUER", "ISSUED", "UNTIL", "FETCHED", "PROBLEM"];
    output.table(&header, tls.lists.iter().map(list_row))
}

fn certificate_row(one: &CertificateDocument) -> Vec<String> {
    vec![
        one.subject.clone(),
        one.role.to_owned(),
        at(&one.not_after),
        one.serial.clone(),
        one.thumbprint_sha256.clone(),
    ]
}

fn list_row(one: &ListDocument) -> Vec<String> {
    vec![
        one.source.clone(),
        at(&one.issuer),
        at(&one.this_update),
        at(&one.next_update),
        at(&one.fetched_at),
        at(&one.problem),
    ]
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    fn status() -> TlsStatus {
        let stamp = |seconds| Some(Timestamp { seconds, nanos: 0 });
        TlsStatus {
            number: 3,
            loaded_at: stamp(60),
            minimum_version: "1.3".into(),
            client_certificate_required: true,
            revocation: RevocationPolicy::SoftFail.into(),
            certificates: vec![TlsCertificate {
                role: TlsCertificateRole::Own.into(),
                subject: "CN=sso-server-1".into(),
                thumbprint_sha256: "00112233445566778899".into(),
                not_after: stamp(0),
                ..Default::default()
            }],
            lists: vec![
                RevocationList {
                    source: "tls/ca.crl".into(),
                    next_update: stamp(120),
                    ..Default::default()
                },
                RevocationList {
                    source: "http://pki/ca.crl".into(),
                    problem: "not to be had".into(),
                    ..Default::default()
                },
            ],
            ..Default::default()
        }
    }

    #[test]
    fn tls_as_document_and_pairs() {
        let document = document(status());
        let json = serde_json::to_value(&document).unwrap();
        assert_eq!(json["revocation"], "soft-fail");
        assert_eq!(json["certificates"][0]["role"], "own");
        assert_eq!(json["certificates"][0]["not_after"], "1970-01-01T00:00:00.000Z");
        assert_eq!(json["lists"][0]["problem"], serde_json::Value::Null);
        assert_eq!(json["lists"][1]["next_update"], serde_json::Value::Null);
        assert_eq!(json["failed_at"], serde_json::Value::Null);
        let shown = pairs(&document);
        let value = |name: &str| &shown.iter().find(|(it, _)| *it == name).unwrap().1;
        let own = "CN=sso-server-1, until 1970-01-01T00:00:00.000Z, SHA-256 0011223344556677…";
        assert_eq!(value("certificate"), own);
        assert_eq!(value("TLS"), "1.3 or newer, client certificate required");
        let lists = "soft-fail, tls/ca.crl until 1970-01-01T00:02:00.000Z, http://pki/ca.crl: not to be had";
        assert_eq!(value("revocation"), lists);
        assert!(shown.iter().all(|(name, _)| *name != "not reloaded"));
    }

    #[test]
    fn a_reload_that_failed_is_shown() {
        let mut failed = status();
        (failed.failure, failed.failed_at) = ("x.crt: broken".into(), failed.loaded_at);
        let shown = pairs(&document(failed));
        let row = ("not reloaded", "1970-01-01T00:01:00.000Z: x.crt: broken".to_owned());
        assert!(shown.contains(&row), "{shown:?}");
    }

    #[test]
    fn what_a_later_version_says_is_unknown() {
        assert_eq!(policy(0), "unknown");
        assert_eq!(policy(99), "unknown");
    }
}

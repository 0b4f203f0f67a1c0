//! What this master has in use for TLS, as messages.

use sso_core::tls::{
    CertificateRole, CertificateStatus, ClientCertificate, ListStatus, RevocationPolicy, TlsStatus,
};
use sso_proto::v1;

use super::convert::timestamp;

/// The status with what it warns of.
pub(super) fn tls(status: TlsStatus, warnings: Vec<String>) -> v1::TlsStatus {
    let (failed_at, failure) = status.last_failure.unzip();
    v1::TlsStatus {
        number: status.generation,
        loaded_at: Some(timestamp(status.loaded_at)),
        failed_at: failed_at.map(timestamp),
        failure: failure.unwrap_or_default(),
        minimum_version: status.minimum_version.as_str().to_owned(),
        revocation: policy(status.revocation).into(),
        client_certificate_required: status.client_certificate == ClientCertificate::Required,
        certificates: status.certificates.into_iter().map(certificate).collect(),
        lists: status.lists.into_iter().map(list).collect(),
        warnings,
    }
}

fn policy(policy: RevocationPolicy) -> v1::RevocationPolicy {
    match policy {
        RevocationPolicy::HardFail => v1::RevocationPolicy::HardFail,
        RevocationPolicy::SoftFail => v1::RevocationPolicy::SoftFail,
        RevocationPolicy::Off => v1::RevocationPolicy::Off,
    }
}

fn certificate(one: CertificateStatus) -> v1::TlsCertificate {
    let role = match one.role {
        CertificateRole::Own => v1::TlsCertificateRole::Own,
        CertificateRole::Intermediate => v1::TlsCertificateRole::Intermediate,
        CertificateRole::Authority => v1::TlsCertificateRole::Authority,
    };
    v1::TlsCertificate {
        role: role.into(),
        subject: one.subject,
        issuer: one.issuer,
        serial: one.serial,
        thumbprint_sha1: one.thumbprint_sha1,
        thumbprint_sha256: one.thumbprint_sha256,
        not_before: Some(timestamp(one.not_before)),
        not_after: Some(timestamp(one.not_after)),
    }
}

fn list(one: ListStatus) -> v1::RevocationList {
    v1::RevocationList {
        source: one.source,
        issuer: one.issuer.unwrap_or_default(),
        this_update: one.this_update.map(timestamp),
        next_update: one.next_update.map(timestamp),
        fetched_at: one.fetched_at.map(timestamp),
        problem: one.problem.unwrap_or_default(),
    }
}

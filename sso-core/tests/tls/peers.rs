//! Who is served and who is not, and the words that a caller of ours gets.

use std::fs;

use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use sso_core::{
    acceptor::AcceptLimits,
    connector::{ClientTls, ConnectOptions, connect_channel, is_trust_failure, transport_reason},
    tls::{Application, TlsReloader},
};
use tokio::net::TcpListener;
use tonic::Status;

use crate::{
    pki::{Pki, development},
    world::{at, call, channel, channel_of, load_error, refusal, refusal_of, serve, serve_files},
};

#[tokio::test]
async fn a_good_client_is_served_and_known() {
    let pki = Pki::new();
    let server = serve_files(&pki.issue("server")).await;
    let mut channel = channel(&server, &pki.issue("ann"));
    assert_eq!(call(&mut channel).await.unwrap(), "sso://DEV/ann");
    assert_eq!(call(&mut channel).await.unwrap(), "sso://DEV/ann");
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused() {
    let (pki, other) = (Pki::new(), Pki::new());
    let server = serve_files(&pki.issue("server")).await;
    let mut foreign = other.issue("ann");
    // The server's authority is known to the client, so only the server has a reason to refuse.
    foreign.ca = pki.path("ca.crt");
    let reason = refusal(&server, &foreign).await;
    assert!(reason.starts_with("UNTRUSTED_ISSUER: "), "{reason}");
    assert!(reason.contains("UnknownCA"), "{reason}");

    let reason = refusal(&server, &other.issue("bob")).await;
    assert!(
        reason.starts_with("UNTRUSTED_ISSUER: the server's certificate is refused"),
        "{reason}"
    );
}

#[tokio::test]
async fn an_expired_client_is_refused() {
    let pki = Pki::new();
    let server = serve_files(&pki.issue("server")).await;
    let expired = pki.issue_with("ann", |params| params.not_after = date_time_ymd(2021, 1, 1));
    assert!(load_error(&expired).contains("expired on 2021-01-01"));
    // A client whose clock is behind sends it all the same.
    let behind = TlsReloader::load_for(&expired, Application::Grpc, at(2020)).unwrap();
    let reason = refusal_of(&mut channel_of(&server, behind.into())).await;
    assert!(reason.contains("CertificateExpired"), "{reason}");
}

#[tokio::test]
async fn an_expired_server_is_refused() {
    let pki = Pki::new();
    let expired = pki.issue_with("server", |params| params.not_after = date_time_ymd(2021, 1, 1));
    let behind = TlsReloader::load_for(&expired, Application::Grpc, at(2020)).unwrap();
    let server = serve(behind, AcceptLimits::default()).await;
    let reason = refusal(&server, &pki.issue("ann")).await;
    assert!(
        reason.starts_with("CERTIFICATE_EXPIRED: ") && reason.contains("2021-01-01"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_revoked_client_is_refused() {
    let pki = Pki::new();
    let mut settings = pki.issue("server");
    let (ann, bob) = (pki.issue("ann"), pki.issue("bob"));
    settings.crl = vec![pki.revoke(&[2], 2200).into()];
    let server = serve_files(&settings).await;
    let reason = refusal(&server, &ann).await;
    assert!(reason.contains("CertificateRevoked"), "{reason}");
    assert_eq!(call(&mut channel(&server, &bob)).await.unwrap(), "sso://DEV/bob");
}

#[tokio::test]
async fn a_revoked_server_is_refused() {
    let pki = Pki::new();
    let server = serve_files(&pki.issue("server")).await;
    let mut ann = pki.issue("ann");
    ann.crl = vec![pki.revoke(&[1], 2200).into()];
    let reason = refusal(&server, &ann).await;
    assert!(reason.contains("it is revoked"), "{reason}");
}

#[tokio::test]
async fn an_expired_or_foreign_revocation_list_refuses_everyone() {
    let (pki, other) = (
        Pki::new(),
        Pki::with(|params| {
            params.distinguished_name.push(rcgen::DnType::OrganizationName, "Another");
        }),
    );
    let (mut server, mut ann) = (pki.issue("server"), pki.issue("ann"));
    let plain = serve_files(&server).await;
    for (list, wanted) in [
        (pki.revoke(&[], 2021), "REVOCATION_LIST_EXPIRED: "),
        (other.revoke(&[], 2200), "REVOCATION_LIST_UNAVAILABLE: "),
    ] {
        ann.crl = vec![list.clone().into()];
        let reason = refusal(&plain, &ann).await;
        assert!(reason.contains(wanted), "{reason}");

        ann.crl = Vec::new();
        server.crl = vec![list.into()];
        let strict = serve_files(&server).await;
        let reason = refusal(&strict, &ann).await;
        assert!(
            reason.starts_with("REVOCATION_LIST_UNAVAILABLE: the server cannot tell"),
            "{reason}"
        );
        assert!(reason.contains("not a refusal of the certificate itself"), "{reason}");
    }
}

#[tokio::test]
async fn a_leaf_is_no_authority() {
    let pki = Pki::new();
    let server = serve_files(&pki.issue("server")).await;
    refusal(&server, &pki.issue_by_leaf("ann")).await;
}

#[tokio::test]
async fn equal_names_and_serials_with_another_key_are_refused() {
    let pki = Pki::new();
    let ann = pki.issue("ann");
    let server = serve_files(&pki.issue("server")).await;
    call(&mut channel(&server, &ann)).await.unwrap();
    refusal(&server, &pki.forge("ann")).await;
}

#[tokio::test]
async fn a_certificate_for_servers_is_none_for_clients() {
    let pki = Pki::new();
    let server = serve_files(&pki.issue("server")).await;
    let wrong = pki.issue_with("ann", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let reason = refusal(&server, &wrong).await;
    assert!(reason.contains("clientAuth"), "{reason}");
}

#[tokio::test]
async fn certificates_of_development_are_refused_unless_allowed() {
    let pki = Pki::new();
    let mut marked = pki.issue_with("ann", development);
    assert!(load_error(&marked).contains("ann.crt: the certificate was made for development"));
    marked.allow_development = true;

    let strict = serve_files(&pki.issue("server")).await;
    let reason = refusal(&strict, &marked).await;
    assert!(reason.contains("development"), "{reason}");

    let mut lenient = pki.issue_with("dev-server", development);
    lenient.allow_development = true;
    let lenient = serve_files(&lenient).await;
    call(&mut channel(&lenient, &marked)).await.unwrap();
    let reason = refusal(&lenient, &pki.issue("bob")).await;
    assert!(reason.contains("development"), "{reason}");

    let pki = Pki::with(development);
    assert!(load_error(&pki.issue("carol")).contains("the certificate authority was made for"));
}

#[tokio::test]
async fn long_chains_are_refused() {
    let pki = Pki::new();
    let server = serve_files(&pki.issue("server")).await;
    let ann = pki.issue("ann");
    let own = fs::read_to_string(&ann.certificate).unwrap();
    fs::write(&ann.certificate, own.repeat(6)).unwrap();
    let reason = refusal(&server, &ann).await;
    assert!(reason.contains("chain too long"), "{reason}");
}

#[tokio::test]
async fn unreachable_servers_are_told_apart_from_untrusted_ones() {
    let pki = Pki::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    drop(listener);
    let tls = ClientTls::load(&pki.issue("ann")).unwrap();
    let mut channel = connect_channel(&url, tls, ConnectOptions::default()).unwrap();
    let status = call(&mut channel).await.unwrap_err();
    assert!(!is_trust_failure(&status));
    assert!(transport_reason(&status).unwrap().contains("nothing listens"), "{status:?}");
    assert_eq!(transport_reason(&Status::internal("from the service")), None);
}

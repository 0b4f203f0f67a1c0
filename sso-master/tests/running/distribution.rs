//! Who gets the key ring, and what watchers see.

use std::time::Duration;

use prost::Message as _;
use sso_core::transit::{self, TransitKeyPair};
use sso_proto::{
    Reason,
    v1::{
        FetchRequest, FetchResponse, KeyRingTransfer, ReplicateRequest, ReportRequest, WatchRequest,
    },
};

use crate::support::{
    KEYSTORE, Plan, SOON, World, authority, end_of, facts, issue, key, master_uri, port, reason,
};

const SERVER: &str = "sso-server://sso-server-1";

#[tokio::test]
async fn a_listed_server_fetches_every_generation() {
    let world = World::new();
    let master = world.master().await;
    let pair = TransitKeyPair::generate().unwrap();
    let request = FetchRequest { recipient_key: pair.public_key() };
    let response = world.client(&master, SERVER).fetch(request).await.unwrap().into_inner();

    let state = response.state.unwrap();
    assert_eq!((state.active_generation, state.interval_ms), (1, 100));
    assert_eq!(state.version, master.current().change);
    assert_eq!((state.epoch, state.name.as_str()), (1, "master"));
    assert_eq!(state.keystore_id, KEYSTORE.to_string());
    assert_eq!(state.primary, state.member);
    let plaintext = pair.open(&response.sealed, transit::FETCH).unwrap();
    let transfer = KeyRingTransfer::decode(plaintext.expose()).unwrap();
    assert_eq!(transfer.active_generation, 1);
    let keys: Vec<_> =
        transfer.generations.iter().map(|key| (key.generation, key.key[0])).collect();
    assert_eq!(keys, [(1, 1)]);
    let clear = key(1);
    assert!(!response.sealed.windows(32).any(|window| window == clear.expose()));
    master.close().await;
}

#[tokio::test]
async fn only_listed_servers_get_anything() {
    let world = World::new();
    let master = world.master().await;
    for name in ["sso-server://sso-server-3", "sso://DEV/anna", "sso-server://sso-server-11"] {
        let mut client = world.client(&master, name);
        let pair = TransitKeyPair::generate().unwrap();
        let request = FetchRequest { recipient_key: pair.public_key() };
        let fetched = client.fetch(request).await.unwrap_err();
        let watched = client.watch(WatchRequest::default()).await.unwrap_err();
        let reported = client.report(ReportRequest::default()).await.unwrap_err();
        let recipient_key = pair.public_key();
        let copied = client.replicate(ReplicateRequest { recipient_key }).await.unwrap_err();
        for status in [fetched, watched, reported, copied] {
            assert_eq!(reason(&status), Reason::ServerNotListed, "{name}");
        }
    }
    master.close().await;
}

/// They could send much, slowly, on many connections.
#[tokio::test]
async fn strangers_are_refused_before_their_message_is_read() {
    let world = World::new();
    let master = world.master().await;
    for (path, expected) in [
        ("/sso.v1.MasterSecret/Fetch", Reason::ServerNotListed),
        ("/sso.v1.Secret/Restore", Reason::MasterAdministrationLocal),
    ] {
        let mut grpc = tonic::client::Grpc::new(world.channel(&master, "sso://DEV/anna"));
        grpc.ready().await.unwrap();
        let never = tonic::Request::new(tokio_stream::pending::<FetchRequest>());
        let codec = tonic_prost::ProstCodec::<FetchRequest, FetchResponse>::default();
        let call = grpc.client_streaming(never, http::uri::PathAndQuery::from_static(path), codec);
        let answer = tokio::time::timeout(SOON, call).await.expect("an answer without a message");
        assert_eq!(reason(&answer.unwrap_err()), expected);
    }
    let reported = ReportRequest {
        instance: uuid::Uuid::nil().to_string(),
        epoch: u64::MAX >> 1,
        ..ReportRequest::default()
    };
    let refused = world.client(&master, SERVER).report(reported).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::InvalidRequest);
    assert!(refused.message().contains("not believed"), "{refused}");
    let request = sso_proto::v1::GetSecretStatusRequest {};
    let status = master.administrator().get_status(request).await.unwrap().into_inner();
    assert!(status.epoch == 1 && status.role() == sso_proto::v1::MasterRole::Primary, "{status:?}");
    master.close().await;
}

#[tokio::test]
async fn the_keystore_is_for_masters_and_the_key_ring_for_servers() {
    let world = World::new();
    world.make_keystore("master", 1);
    let plan = Plan { peers: vec![("other".to_owned(), 1)], ..Plan::default() };
    let master = world.start("master", port().await, &plan).await;
    let recipient_key = TransitKeyPair::generate().unwrap().public_key();
    let request = ReplicateRequest { recipient_key: recipient_key.clone() };
    let mut server = world.client(&master, SERVER);
    let refused = server.replicate(request.clone()).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::ServerNotListed);

    let mut peer = world.client(&master, &master_uri("other"));
    let refused = peer.fetch(FetchRequest { recipient_key }).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::ServerNotListed);
    let given = peer.replicate(request).await.unwrap().into_inner();
    assert_eq!(given.state.unwrap().name, "master");
    master.close().await;
}

#[tokio::test]
async fn a_public_key_that_is_none_is_refused() {
    let world = World::new();
    let master = world.master().await;
    for recipient_key in [vec![], vec![0; 32], vec![1; 31]] {
        let mut client = world.client(&master, SERVER);
        let status = client.fetch(FetchRequest { recipient_key }).await.unwrap_err();
        assert_eq!(reason(&status), Reason::InvalidRequest);
    }
    let mut client = world.client(&master, SERVER);
    let watched = client.watch(WatchRequest { instance: "me".to_owned() }).await.unwrap_err();
    let reported = client.report(facts(1, "")).await.unwrap_err();
    for status in [watched, reported] {
        assert_eq!(reason(&status), Reason::InvalidRequest);
    }
    master.close().await;
}

#[tokio::test]
async fn watchers_see_heartbeats_and_changes_and_the_end() {
    let world = World::new();
    let master = world.master().await;
    let mut beats = world.server(&master, "sso-server-1").watch().await;
    let first = beats.message().await.unwrap().unwrap();
    assert_eq!(first.active_generation, 1);
    let second = beats.message().await.unwrap().unwrap();
    assert_eq!(second.version, first.version);
    assert!(second.master_time_ms >= first.master_time_ms);

    let now = time::OffsetDateTime::UNIX_EPOCH;
    master.custody.change(|draft| draft.prepare(now, 0)).unwrap();
    let mut beat = beats.message().await.unwrap().unwrap();
    if beat.version == first.version {
        // This one was on its way already.
        beat = beats.message().await.unwrap().unwrap();
    }
    assert_eq!((beat.version, beat.active_generation), (first.version + 1, 1));

    master.shutdown.drain();
    let end = async { while let Ok(Some(_)) = beats.message().await {} };
    tokio::time::timeout(Duration::from_secs(5), end).await.unwrap();
    master.close().await;
}

#[tokio::test]
async fn a_watcher_that_is_no_longer_trusted_is_cut_off() {
    let world = World::new();
    let master = world.master().await;
    let mut beats = world.server(&master, "sso-server-1").watch().await;
    beats.message().await.unwrap().unwrap();

    // Another authority takes over: the certificate of the watcher is worth nothing now.
    let other = authority();
    issue(world.folder.path(), &other, "master", &master_uri("master"));
    master.tls.reload().unwrap();
    assert_eq!(end_of(&mut beats).await, Reason::CertificateRefused);
    master.close().await;
}

#[tokio::test]
async fn a_revoked_server_loses_everything_at_once_and_comes_back_when_readmitted() {
    let world = World::new();
    let master = world.master().await;
    let (one, two) = (world.server(&master, "sso-server-1"), world.server(&master, "sso-server-2"));
    one.catch_up().await;
    let (mut beats, mut others) = (one.watch().await, two.watch().await);
    beats.message().await.unwrap().unwrap();
    let name = "sso-server-1".to_owned();
    let mut administrator = master.administrator();
    let request = sso_proto::v1::RevokeServerRequest { name: name.clone() };
    let revoked = administrator.revoke_server(request).await.unwrap().into_inner();
    assert!(revoked.told && revoked.forgotten_by.is_some());
    assert_eq!(end_of(&mut beats).await, Reason::ServerRevoked);
    for status in [
        one.fetch().await.unwrap_err(),
        one.report(facts(1, "")).await.unwrap_err(),
        one.client.clone().watch(WatchRequest::default()).await.unwrap_err(),
    ] {
        assert_eq!(reason(&status), Reason::ServerRevoked);
    }
    let told = async {
        loop {
            let beat = others.message().await.unwrap().unwrap();
            if beat.revocations.get(&name) == Some(&1) {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, told).await.unwrap();

    let unknown = sso_proto::v1::RevokeServerRequest { name: "sso-server-9".to_owned() };
    let status = administrator.revoke_server(unknown).await.unwrap_err();
    assert_eq!(reason(&status), Reason::ServerNotFound);
    let request = sso_proto::v1::ReadmitServerRequest { name };
    administrator.readmit_server(request).await.unwrap();
    one.fetch().await.unwrap();
    master.close().await;
}

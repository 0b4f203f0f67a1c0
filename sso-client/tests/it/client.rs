//! The library: deadlines, retries, errors, the watch.

use std::time::Duration;

use sso_client::{
    ApplicationFilter, Change, Client, ClientError, ConfigurationKey, ReadMode, RetryPolicy,
    WatchTarget, v1::ConfigurationChange,
};
use sso_proto::Reason;

use crate::fake::{Answer, Fake, issue};

#[tokio::test]
async fn a_read_survives_cut_connections() {
    let fake = Fake::start().await;
    fake.cut(2);
    let status = fake.client().system().status().await.unwrap();
    assert_eq!(status.server, "fake");
    assert_eq!((fake.calls(), fake.connections()), (1, 3));
}

#[tokio::test]
async fn retries_are_bounded_and_can_be_off() {
    let fake = Fake::start().await;
    fake.cut(100);
    let error = fake.client().system().status().await.unwrap_err();
    assert!(matches!(&error, ClientError::Unreachable { trust: false, .. }), "{error:?}");
    assert_eq!((fake.calls(), fake.connections()), (0, 4));
    let client = fake.client().with_retry(RetryPolicy::NEVER);
    client.system().status().await.unwrap_err();
    assert_eq!(fake.connections(), 5);
}

#[tokio::test]
async fn a_write_is_sent_once() {
    let fake = Fake::start().await;
    fake.cut(1);
    let client = fake.client();
    let error = client.system().enable().await.unwrap_err();
    assert_eq!((error.kind(), error.exit_code()), ("unreachable", 69));
    assert!(matches!(error, ClientError::Unreachable { outcome_unknown: false, .. }), "never left");
    assert_eq!((fake.calls(), fake.connections()), (0, 1));
    client.system().enable().await.unwrap();
    assert_eq!(fake.calls(), 1, "the connection is opened again by the next call");

    fake.answer(Answer::Never);
    let client = client.with_deadline(Duration::from_millis(300));
    let error = client.system().enable().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { outcome_unknown: true, .. }), "{error:?}");
    assert_eq!(fake.calls(), 2, "it arrived, once");
}

#[tokio::test]
async fn an_answer_of_the_service_is_final() {
    let fake = Fake::start().await;
    let client = fake.client();
    for (number, (reason, kind, code)) in [
        (Reason::MasterSecretMissing, "unavailable", 69),
        (Reason::Internal, "fault", 1),
        (Reason::NotSsoAdministrator, "denied", 77),
    ]
    .into_iter()
    .enumerate()
    {
        fake.answer(Answer::Refuse(reason));
        let error = client.system().status().await.unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (kind, code));
        assert_eq!(error.refusal().unwrap().reason, reason.as_str());
        assert_eq!(fake.calls(), number + 1, "{reason:?} was tried again");
    }
}

#[tokio::test]
async fn a_read_comes_again_to_a_busy_server_and_a_change_does_not() {
    let fake = Fake::start().await;
    let client = fake.client();
    fake.answer(Answer::Refuse(Reason::Overloaded));
    let error = client.system().status().await.unwrap_err();
    assert_eq!((error.kind(), error.exit_code()), ("unavailable", 69));
    assert_eq!(error.refusal().unwrap().reason, Reason::Overloaded.as_str());
    let tries = 1 + usize::try_from(sso_client::RetryPolicy::default().retries).unwrap();
    assert_eq!(fake.calls(), tries);
    client.system().enable().await.unwrap_err();
    assert_eq!(fake.calls(), tries + 1);
}

#[tokio::test]
async fn the_deadline_holds_for_slow_answers_and_slow_connections() {
    let fake = Fake::start().await;
    fake.answer(Answer::Never);
    let client = fake.client().with_deadline(Duration::from_millis(300));
    let start = tokio::time::Instant::now();
    let error = client.system().status().await.unwrap_err();
    assert_eq!(error.kind(), "unreachable", "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());

    // A listener that never shakes hands.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut profile = fake.profile();
    profile.addr = format!("https://{}", silent.local_addr().unwrap());
    let client = Client::connect(&profile).unwrap().with_deadline(Duration::from_millis(300));
    let start = tokio::time::Instant::now();
    let error = client.system().status().await.unwrap_err();
    assert_eq!(error.kind(), "unreachable", "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_refused_certificate_is_named_and_not_tried_again() {
    let fake = Fake::start().await;
    let foreign = tempfile::tempdir().unwrap();
    issue(foreign.path(), "other", "client");

    // The server does not know the client's authority.
    let mut profile = fake.profile();
    profile.cert = Some(foreign.path().join("client.crt"));
    profile.key = Some(foreign.path().join("client.key"));
    let error = Client::connect(&profile).unwrap().system().status().await.unwrap_err();
    assert!(matches!(&error, ClientError::Unreachable { trust: true, .. }), "{error:?}");
    assert!(error.to_string().contains("refused the client certificate"), "{error}");
    assert_eq!(fake.connections(), 1);

    // The client does not know the server's.
    let mut profile = fake.profile();
    profile.ca = Some(foreign.path().join("ca.crt"));
    let error = Client::connect(&profile).unwrap().system().status().await.unwrap_err();
    assert!(matches!(&error, ClientError::Unreachable { trust: true, .. }), "{error:?}");
    assert!(error.to_string().contains("UNTRUSTED_ISSUER"), "{error}");
    assert_eq!(fake.connections(), 2);
    assert_eq!(fake.calls(), 0);
}

#[tokio::test]
async fn profiles_that_cannot_work_are_settings_errors() {
    use std::os::unix::fs::PermissionsExt as _;
    let fake = Fake::start().await;
    let mut profile = fake.profile();
    profile.addr = "http://127.0.0.1:1".into();
    assert_eq!(Client::connect(&profile).unwrap_err().exit_code(), 64);
    let mut profile = fake.profile();
    profile.cert = Some("/nowhere.crt".into());
    assert_eq!(Client::connect(&profile).unwrap_err().exit_code(), 64);
    let profile = fake.profile();
    std::fs::set_permissions(profile.key.as_ref().unwrap(), std::fs::Permissions::from_mode(0o644))
        .unwrap();
    let error = Client::connect(&profile).unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[tokio::test]
async fn lists_take_all_pages() {
    let fake = Fake::start().await;
    let filter = ApplicationFilter::default();
    let applications = fake.client().applications().list(&filter).await.unwrap();
    assert_eq!((applications.len(), fake.calls()), (250, 3));
    assert_eq!(applications[249].name, "App249");
}

#[tokio::test]
async fn values_by_mode() {
    let fake = Fake::start().await;
    let store = fake.client().config_store();
    let key = ConfigurationKey::new("App", "Id");
    let configuration = store.get(&key, ReadMode::Admin).await.unwrap();
    assert!(configuration.value("ApiKey").is_none());
    assert_eq!(configuration.masked, ["ApiKey"]);
    let configuration = store.get(&key, ReadMode::Runtime).await.unwrap();
    // Expose: compared with what the fake holds.
    assert_eq!(configuration.value("apikey").unwrap().expose(), "secret-0815");
}

fn change(revision: u64, deleted: bool) -> ConfigurationChange {
    ConfigurationChange { application: "App".into(), identifier: "Id".into(), revision, deleted }
}

fn target() -> Vec<WatchTarget> {
    vec![WatchTarget { application: "App".into(), identifier: None }]
}

#[tokio::test]
async fn a_watch_survives_outages_and_repeats_nothing() {
    let fake = Fake::start().await;
    *fake.state.watches.lock().unwrap() = vec![
        vec![change(1, false), change(2, false)],
        vec![change(2, false)],
        vec![],
        vec![change(2, false), change(3, true)],
        vec![change(3, true), change(4, false)],
    ];
    let watch = fake.client().config_store().watch(target()).await.unwrap();
    let mut watch = watch.reconnecting(true);
    for (revision, deleted) in [(1, false), (2, false), (3, true), (4, false)] {
        let expected = Change { key: ConfigurationKey::new("App", "Id"), revision, deleted };
        assert_eq!(watch.next().await.unwrap(), Some(expected));
    }
    assert_eq!(fake.calls(), 5);
    fake.answer(Answer::Refuse(Reason::NotApplicationUser));
    let error = watch.next().await.unwrap_err();
    assert_eq!(error.kind(), "denied", "a refusal ends it");
}

#[tokio::test]
async fn a_watch_without_reconnecting_ends() {
    let fake = Fake::start().await;
    *fake.state.watches.lock().unwrap() = vec![vec![change(1, false)]];
    let mut watch = fake.client().config_store().watch(target()).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, 1);
    assert_eq!(watch.next().await.unwrap_err().exit_code(), 69);
}

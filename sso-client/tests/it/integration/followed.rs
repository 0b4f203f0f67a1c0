//! A configuration that changes, breaks and vanishes while a host follows it.

use sso_client::{
    ConfigurationKey,
    integration::{Again, FollowError, Followed, Parties, SendPort},
};
use sso_proto::Reason;
use tokio_util::sync::CancellationToken;

use super::until;
use crate::fake::{Answer, Fake};

fn port(address: &str) -> [(&str, &str); 3] {
    [("Address", address), ("AuthorityFile", "ca.crt"), ("TimeoutSeconds", "")]
}

async fn follow(fake: &Fake) -> Result<Followed<SendPort>, FollowError> {
    let key = ConfigurationKey::new("App", "Id");
    Followed::start(&fake.client(), key, "Bills", SendPort::read, CancellationToken::new()).await
}

#[tokio::test]
async fn the_last_good_value_stays_and_better_ones_are_taken() {
    let fake = Fake::start().await;
    let live = &fake.state.live;
    live.set(&port("https://one.example"));
    let mut followed = follow(&fake).await.unwrap();
    assert_eq!(followed.current().address, "https://one.example");
    assert_eq!((followed.revision(), followed.problem()), (1, None));

    live.set(&port("https://two.example"));
    assert_eq!(followed.changed().await.address, "https://two.example");

    live.set(&port("http://bad.example"));
    until("the bad one is told", async || followed.problem().is_some()).await;
    assert!(followed.problem().unwrap().contains("Address has to start with https://"));
    assert_eq!(followed.current().address, "https://two.example");

    live.delete();
    until("the deletion is told", async || {
        followed.problem().is_some_and(|problem| problem.contains("deleted"))
    })
    .await;
    assert_eq!(followed.current().address, "https://two.example");

    live.set(&port("https://three.example"));
    assert_eq!(followed.changed().await.address, "https://three.example");
    assert_eq!((followed.revision(), followed.problem()), (5, None));
}

#[tokio::test]
async fn outages_and_refusals_end_nothing() {
    let fake = Fake::start().await;
    let live = &fake.state.live;
    live.set(&port("https://one.example"));
    let mut followed = follow(&fake).await.unwrap();
    live.break_watches();
    fake.cut(3);
    live.set(&port("https://two.example"));
    assert_eq!(followed.changed().await.address, "https://two.example");

    // The rights are taken away and given back.
    fake.answer(Answer::Refuse(Reason::NotApplicationUser));
    live.break_watches();
    live.set(&port("https://three.example"));
    until("the refusal is told", async || followed.problem().is_some()).await;
    assert_eq!(followed.current().address, "https://two.example");
    fake.answer(Answer::Good);
    assert_eq!(followed.changed().await.address, "https://three.example");
    assert_eq!(followed.problem(), None);
}

#[tokio::test]
async fn without_a_first_good_value_there_is_nothing_to_follow() {
    let fake = Fake::start().await;
    fake.state.live.set(&port("ftp://one.example"));
    let error = follow(&fake).await.unwrap_err();
    assert!(matches!(error, FollowError::Port(_)), "{error}");
    assert_eq!(error.again(), Again::AfterRepair);
    fake.state.live.delete();
    let error = follow(&fake).await.unwrap_err();
    assert!(error.to_string().contains("App/Id"), "{error}");
    assert_eq!(error.again(), Again::AfterRepair);
    fake.state.live.set(&port("https://one.example"));
    fake.answer(Answer::Refuse(Reason::DatabaseUnavailable));
    assert_eq!(follow(&fake).await.unwrap_err().again(), Again::Later);
}

#[tokio::test]
async fn parties_are_followed_likewise() {
    let fake = Fake::start().await;
    fake.state.live.set(&[("gateway", &"a".repeat(64))]);
    let key = ConfigurationKey::new("App", "Id");
    let (client, shutdown) = (fake.client(), CancellationToken::new());
    let parties = Followed::start(&client, key, "All", Parties::read, shutdown.clone());
    let mut parties = parties.await.unwrap();
    fake.state.live.set(&[("gateway", &"a".repeat(64)), ("bank", "disabled")]);
    assert_eq!(parties.changed().await.names().collect::<Vec<_>>(), ["bank", "gateway"]);

    // After the end of the host's work nothing is followed, and what was read stays.
    shutdown.cancel();
    assert_eq!(parties.current().names().count(), 2);
}

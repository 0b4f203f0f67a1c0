//! A server whose right to the keys is revoked, and given back.

use super::*;

fn revoke(says: &mut Says) {
    says.version += 1;
    says.refuse = Some(Reason::ServerRevoked);
}

fn readmit(says: &mut Says) {
    says.version += 1;
    says.refuse = None;
}

async fn until_revoked(scene: &Scene) {
    scene.until("revoked", |secret| secret.status().state == MasterState::Revoked).await;
    assert!(scene.secret.keys.load().is_none());
    let error = Error::from(scene.secret.keys_for_read().unwrap_err());
    assert_eq!(error.reason, Reason::MasterSecretRevoked);
    assert_eq!(scene.secret.keys_for_write().unwrap_err().to_string(), error.message);
    let status = scene.secret.status();
    assert!(status.read_lease_until.is_none() && status.generations.is_empty());
    assert_eq!(scene.secret.orders().borrow().active, None);
}

#[tokio::test]
async fn keys_are_forgotten_at_once_and_come_back_with_the_right() {
    let scene = Scene::of(1).await;
    scene.say(revoke);
    until_revoked(&scene).await;
    scene.say(readmit);
    scene.until_current().await;
    assert_eq!(scene.secret.status().state, MasterState::Current);
}

#[tokio::test]
async fn a_standby_that_has_not_heard_of_it_gives_nothing_back() {
    let scene = Scene::of(2).await;
    scene.say(revoke);
    until_revoked(&scene).await;
    scene.until_useless(1, "has not heard yet").await;
    assert_eq!(scene.secret.status().state, MasterState::Revoked);
    scene.say_at(1, revoke);
    scene.until_useless(1, "no server is listed").await;
    scene.say_at(1, readmit);
    // Now it knows more than the one that revoked.
    scene.until_current().await;
}

#[tokio::test]
async fn a_new_primary_decides_anew() {
    let mut scene = Scene::of(2).await;
    scene.say(revoke);
    until_revoked(&scene).await;
    scene.down_at(0);
    scene.say_at(1, Says::promote);
    scene.until_current().await;
    assert_eq!(scene.secret.status().epoch, 2);
}

#[tokio::test]
async fn the_word_of_an_outdated_master_revokes_nothing() {
    let scene = Scene::of(2).await;
    scene.say_at(1, Says::promote);
    scene.until("in epoch 2", |secret| secret.status().epoch == 2).await;
    scene.say_at(0, revoke);
    scene.until_useless(0, "no server is listed").await;
    assert_eq!(scene.secret.status().state, MasterState::Current);
    assert!(scene.secret.keys_for_write().is_ok());
}

#[tokio::test]
async fn a_server_that_starts_without_its_right_says_so() {
    let mut scene = Scene::new(None).await;
    scene.say(revoke);
    scene.up();
    until_revoked(&scene).await;
    scene.say(readmit);
    scene.until_current().await;
}

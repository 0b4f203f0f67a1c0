//! The whole way to a single master over mutual TLS.

use super::*;

#[tokio::test]
async fn keys_are_obtained_and_are_the_masters() {
    let mut scene = Scene::new(None).await;
    scene.up();
    scene.until_current().await;
    let keys = scene.secret.keys_for_write().unwrap();
    let sealed = keys.seal(&PLACE, b"value").unwrap();
    assert_eq!(ring(&[1], 1).open(&PLACE, &sealed).unwrap().expose(), b"value");
    assert_eq!(scene.database.lock().unwrap().bound, Some(Uuid::from_u128(7)));
    assert!(scene.secret.status().last_confirmed_at.is_some());
}

#[tokio::test]
async fn reads_outlive_the_master_and_writes_do_not() {
    let mut scene = Scene::new(None).await;
    scene.up();
    scene.until_current().await;
    scene.down();
    // The clock stands still, so the lease did not just end by itself.
    let refused = |secret: &MasterSecret| {
        matches!(secret.keys_for_write(), Err(MasterError::Unreachable { last_error, .. })
            if last_error.contains("nothing listens"))
    };
    let took = scene.until("refusing writes", refused).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(scene.secret.keys_for_read().is_ok());

    scene.up();
    let took = scene.until_current().await;
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn keys_are_forgotten_when_the_read_lease_ends() {
    let mut scene = Scene::new(None).await;
    scene.up();
    scene.until_current().await;
    scene.down();
    scene.until("refusing writes", |secret| secret.keys_for_write().is_err()).await;
    scene.clock.advance(Duration::from_secs(600));
    assert!(matches!(scene.secret.keys_for_read(), Err(MasterError::Expired { .. })));
    scene.until("forgotten", |secret| secret.keys.load().is_none()).await;
    scene.up();
    scene.until_current().await;
}

#[tokio::test]
async fn a_server_started_without_master_says_so_and_recovers() {
    let mut scene = Scene::new(None).await;
    let tried = |secret: &MasterSecret| secret.status().last_error.is_some();
    scene.until("tried", tried).await;
    let error = Error::from(scene.secret.keys_for_read().unwrap_err());
    assert_eq!(error.reason, Reason::MasterSecretMissing);
    assert!(error.message.contains("since it started (nothing listens"), "{error}");
    assert_eq!(scene.secret.status().state, MasterState::NeverFetched);
    scene.up();
    scene.until_current().await;
}

#[tokio::test]
async fn the_keys_of_another_system_are_not_used() {
    let own = Uuid::from_u128(1);
    let mut scene = Scene::new(Some(own)).await;
    scene.up();
    scene.until("foreign", |secret| secret.status().state == MasterState::Foreign).await;
    let error = Error::from(scene.secret.keys_for_read().unwrap_err());
    assert_eq!(error.reason, Reason::MasterSecretForeign);
    assert!(error.message.contains(&own.to_string()), "{error}");
    assert!(scene.secret.keys.load().is_none());
    scene.say(|says| says.keystore = own);
    scene.until_current().await;
}

#[tokio::test]
async fn a_master_that_becomes_foreign_ends_writing_alone() {
    let mut scene = Scene::new(None).await;
    scene.up();
    scene.until_current().await;
    scene.say(|says| {
        says.keystore = Uuid::from_u128(8);
        says.version = 2;
        says.keys = vec![9];
    });
    let foreign =
        |secret: &MasterSecret| matches!(secret.keys_for_write(), Err(MasterError::Foreign { .. }));
    scene.until("foreign", foreign).await;
    let keys = scene.secret.keys_for_read().unwrap();
    assert_eq!(keys.active_fingerprint(), ring(&[1], 1).active_fingerprint());
}

#[tokio::test]
async fn a_new_generation_arrives_by_itself() {
    let mut scene = Scene::new(None).await;
    scene.up();
    scene.until_current().await;
    scene.say(|says| {
        says.version = 2;
        says.keys = vec![1, 2];
        says.active = 2;
    });
    scene.until("rotated", |secret| secret.status().active == Some(2)).await;
    assert_eq!(scene.secret.status().generations.len(), 2);
    assert!(scene.secret.keys_for_write().is_ok());
}

#[tokio::test]
async fn a_keystore_that_was_rolled_back_ends_writing() {
    let mut scene = Scene::new(None).await;
    scene.say(|says| {
        says.version = 2;
        says.keys = vec![1, 2];
        says.active = 2;
    });
    scene.up();
    scene.until_current().await;
    scene.say(|says| {
        says.version = 1;
        says.keys = vec![1];
        says.active = 1;
    });
    let refused = |secret: &MasterSecret| {
        // Not just on its way when the newer one was taken.
        scene.clock.advance(Duration::from_millis(20));
        matches!(secret.keys_for_write(), Err(MasterError::Outdated { why, .. })
            if why.contains("change 1"))
    };
    scene.until("refused", refused).await;
    let keys = scene.secret.keys_for_read().unwrap();
    assert_eq!(keys.active_fingerprint(), ring(&[1, 2], 2).active_fingerprint());
}

#[tokio::test]
async fn heartbeats_from_before_a_pause_extend_nothing() {
    let mut scene = Scene::new(None).await;
    scene.up();
    scene.until_current().await;
    // The pause ends the stream; only what is asked for anew brings the lease back.
    scene.say(|says| says.refuse = Some(Reason::ServerNotListed));
    scene.clock.advance(Duration::from_secs(60));
    scene
        .until("told", |secret| {
            secret.status().last_error.is_some_and(|error| error.contains("no server is listed"))
        })
        .await;
    assert!(scene.secret.keys_for_write().is_err());
    scene.say(|says| says.refuse = None);
    scene.until_current().await;
}

#[tokio::test]
async fn polling_serves_where_watching_does_not() {
    let mut scene = Scene::new(None).await;
    scene.say(|says| says.watch = false);
    scene.up();
    scene.until_current().await;
    scene.say(|says| {
        says.version = 2;
        says.keys = vec![1, 2];
        says.active = 2;
    });
    scene.until("rotated", |secret| secret.status().active == Some(2)).await;
    assert!(scene.secret.keys_for_write().is_ok());
}

#[tokio::test]
async fn a_refusal_of_the_master_is_told() {
    let mut scene = Scene::new(None).await;
    scene.say(|says| says.refuse = Some(Reason::ServerNotListed));
    scene.up();
    let told = |secret: &MasterSecret| {
        secret.status().last_error.is_some_and(|error| error.contains("no server is listed"))
    };
    scene.until("told", told).await;
    assert!(matches!(scene.secret.keys_for_read(), Err(MasterError::Missing { .. })));
}

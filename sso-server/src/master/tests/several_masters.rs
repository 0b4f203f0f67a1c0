//! Who is believed where several masters speak.

use super::*;

#[tokio::test]
async fn no_write_is_refused_while_one_master_speaks() {
    let edit = |settings: &mut MasterSettings| settings.write_lease_seconds = 2;
    let mut scene = Scene::with(2, Beginning::default(), Clock::System, edit).await;
    scene.all_up().await;
    for lost in [0, 1] {
        let other = 1 - lost;
        scene.down_at(lost);
        // Longer than the write lease, so that only the other one can have confirmed it.
        let end = scene.clock.instant() + Duration::from_secs(4);
        while scene.clock.instant() < end {
            let refused = scene.secret.keys_for_write().err();
            assert_eq!(refused, None, "{:?}", scene.secret.status());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        scene.until_lost(lost).await;
        let status = scene.secret.status();
        assert_eq!((status.state, status.last_error.as_deref()), (MasterState::Current, None));
        assert!(status.master.starts_with(&status.masters[other].master), "{status:?}");
        assert!(status.masters[lost].last_error.is_some());
        scene.up_at(lost);
        scene.until_good(lost).await;
    }
}

#[tokio::test]
async fn writes_end_when_the_last_master_is_lost() {
    let mut scene = Scene::of(2).await;
    scene.down_at(0);
    scene.until_lost(0).await;
    assert!(scene.secret.keys_for_write().is_ok());
    scene.down_at(1);
    scene.until("refusing writes", |secret| secret.keys_for_write().is_err()).await;
    // Every master is named with what is wrong with it.
    let both_named = |secret: &MasterSecret| {
        let error = secret.keys_for_write().unwrap_err().to_string();
        error.matches("nothing listens").count() == 2
    };
    scene.until("naming both", both_named).await;
    assert!(scene.secret.keys_for_read().is_ok());
}

#[tokio::test]
async fn an_old_primary_is_not_believed_after_a_promotion() {
    let mut scene = Scene::of(2).await;
    scene.say_at(1, Says::promote);
    scene.until("in epoch 2", |secret| secret.status().epoch == 2).await;
    scene.until_useless(0, "epoch 1").await;
    assert!(scene.secret.keys_for_write().is_ok());
    let status = scene.secret.status();
    assert!(status.masters[0].reached && status.masters[1].primary, "{status:?}");
    assert_eq!(status.masters[0].epoch, 1);

    // Nor when it is alone: it may not know what was sealed meanwhile.
    scene.say_at(0, Says::rotate);
    scene.down_at(1);
    let outdated = |secret: &MasterSecret| {
        matches!(secret.keys_for_write(), Err(MasterError::Outdated { .. }))
    };
    scene.until("refusing writes", outdated).await;
    assert_eq!(scene.secret.keys_for_read().unwrap().active().number(), 1);
    let error = Error::from(scene.secret.keys_for_write().unwrap_err());
    assert_eq!(error.reason, Reason::MasterOutdated);

    // It follows, and is good again.
    scene.say_at(0, |says| {
        *says = Says { member: FIRST, ..scene.seats[1].master.says() };
    });
    scene.until_current().await;
}

#[tokio::test]
async fn two_primaries_of_one_epoch_are_not_both_believed() {
    let scene = Scene::of(2).await;
    scene.say_at(1, Says::promote);
    scene.until("in epoch 2", |secret| secret.status().epoch == 2).await;
    scene.say_at(0, Says::promote);
    scene.until_useless(0, "in epoch 2, and the database follows").await;
    assert!(scene.secret.keys_for_write().is_ok());
    assert_eq!(scene.database.lock().unwrap().primary, Some(SECOND));
}

#[tokio::test]
async fn a_standby_that_is_behind_harms_nothing() {
    let mut scene = Scene::of(2).await;
    scene.say_at(0, Says::rotate);
    scene.until("rotated", |secret| secret.status().active == Some(2)).await;
    // Long enough for it to follow.
    let behind = |secret: &MasterSecret| {
        scene.clock.advance(Duration::from_millis(20));
        secret.status().masters[1]
            .last_error
            .as_ref()
            .is_some_and(|error| error.contains("change 1"))
    };
    scene.until("behind", behind).await;
    scene.until_current().await;
    scene.say_at(1, Says::rotate);
    scene.until_good(1).await;
    scene.down_at(0);
    scene.until_lost(0).await;
    assert!(scene.secret.keys_for_write().is_ok());
}

#[tokio::test]
async fn a_foreign_master_among_others_is_named_and_not_believed() {
    let scene = Scene::of(2).await;
    scene.say_at(1, |says| says.keystore = Uuid::from_u128(8));
    scene.until_useless(1, &Uuid::from_u128(8).to_string()).await;
    assert_eq!(scene.secret.status().state, MasterState::Current);
    assert!(scene.secret.keys_for_write().is_ok());
}

#[tokio::test]
async fn keys_that_the_database_refuses_are_not_taken() {
    let scene = Scene::of(1).await;
    scene.database.lock().unwrap().fault = Some(Reason::MasterOutdated);
    scene.say(Says::rotate);
    let outdated = |secret: &MasterSecret| {
        matches!(secret.keys_for_write(), Err(MasterError::Outdated { .. }))
    };
    scene.until("refused", outdated).await;
    let keys = scene.secret.keys_for_read().unwrap();
    assert_eq!(keys.active_fingerprint(), ring(&[1], 1).active_fingerprint());
    scene.database.lock().unwrap().fault = None;
    scene.until("rotated", |secret| secret.status().active == Some(2)).await;
    scene.until_current().await;
}

#[tokio::test]
async fn new_keys_wait_for_the_database_and_the_old_ones_go_on() {
    let scene = Scene::of(1).await;
    scene.database.lock().unwrap().fault = Some(Reason::DatabaseUnavailable);
    scene.say(Says::rotate);
    scene.until_useless(0, "wait for the database").await;
    assert_eq!(scene.secret.keys_for_write().unwrap().active().number(), 1);
    assert_eq!(scene.secret.status().last_error, None);
    scene.database.lock().unwrap().fault = None;
    scene.until("rotated", |secret| secret.status().active == Some(2)).await;
    scene.until_current().await;
    let admitted = &scene.database.lock().unwrap().admitted;
    let offered = admitted.last().unwrap();
    assert_eq!((offered.keystore, offered.epoch, offered.primary), (KEYSTORE, 1, FIRST));
    let generations: Vec<_> =
        offered.generations.iter().map(|known| (known.number, known.active)).collect();
    assert_eq!(generations, [(1, false), (2, true)]);
    let print = ring(&[1, 2], 2).active_fingerprint().to_string();
    assert_eq!(offered.generations[1].fingerprint, print);
}

#[tokio::test]
async fn only_the_primary_orders_to_close() {
    let mut scene = Scene::of(2).await;
    let orders = scene.secret.orders();
    let closing = || orders.borrow().closing.clone();
    scene.say_at(1, |says| says.closing = vec![9]);
    scene.say_at(0, |says| says.closing = vec![1]);
    scene.until("ordered", |_| closing() == [1]).await;
    assert_eq!((orders.borrow().active, orders.borrow().version), (Some(1), Some(1)));
    scene.down_at(0);
    scene.until("not ordered any more", |_| closing().is_empty()).await;
    assert!(scene.secret.keys_for_write().is_ok());
}

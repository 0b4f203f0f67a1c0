//! A primary and a standby: following, promoting, stepping down.

use sso_master::{join::join, keystore::State, settings::Settings};
use sso_proto::{
    Reason, Refusal,
    v1::{GetSecretStatusRequest, MasterRole, PrepareRequest, PromoteRequest},
};
use uuid::Uuid;

use crate::{
    rotation::{prepared, rotate},
    support::{Master, Plan, SOON, World, facts, generation, number, port, private, reason},
};

const FORCE: PromoteRequest = PromoteRequest { force: true };
const PROMOTE: PromoteRequest = PromoteRequest { force: false };

/// Two masters that know one another.
struct Pair {
    world: World,
    primary: Master,
    standby: Master,
    plans: [Plan; 2],
}

impl Pair {
    async fn start() -> Self {
        let world = World::new();
        world.make_keystore("first", 1);
        let (one, two) = (port().await, port().await);
        let plan = |name: &str, port: u16| Plan {
            peers: vec![(name.to_owned(), port)],
            ..Plan::default()
        };
        let plans = [plan("second", number(&two)), plan("first", number(&one))];
        let primary = world.start("first", one, &plans[0]).await;
        world.copy_keystore(&primary.current(), "second", 2);
        let standby = world.start("second", two, &plans[1]).await;
        Self { world, primary, standby, plans }
    }

    async fn close(self) {
        self.standby.close().await;
        self.primary.close().await;
    }
}

async fn again(world: &World, name: &str, at: u16, plan: &Plan) -> Master {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", at)).await.unwrap();
    world.start(name, listener, plan).await
}

#[tokio::test]
async fn a_standby_follows_serves_and_is_not_administered() {
    let pair = Pair::start().await;
    let Pair { world, primary, standby, .. } = &pair;
    prepared(primary);
    let change = primary.current().change;
    let now = standby.until("it follows", |now| now.change == change).await;
    assert_eq!(now.ring, primary.current().ring);
    assert_eq!((now.epoch, now.is_primary()), (1, false));
    assert_eq!(now.member, Uuid::from_u128(2));

    let server = world.server(standby, "sso-server-1");
    let (response, held) = server.fetch().await.unwrap();
    let state = response.state.unwrap();
    assert_eq!((held.len(), state.version, state.name.as_str()), (1, change, "second"));
    assert_eq!(state.primary, Uuid::from_u128(1).to_string());
    let mut beats = server.watch().await;
    assert_eq!(beats.message().await.unwrap().unwrap().version, change);

    let mut administrator = standby.administrator();
    let refused = administrator.prepare(PrepareRequest::default()).await.unwrap_err();
    let refused = Refusal::from_status(&refused).unwrap();
    assert_eq!(refused.reason, Reason::NotPrimary);
    assert!(refused.message.contains("the primary is first"), "{}", refused.message);
    let refused = administrator.rotate(rotate(2, &[])).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::NotPrimary);
    let status = administrator.get_status(GetSecretStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.role(), MasterRole::Standby);
    let leader = status.masters.iter().find(|it| it.name == "first").unwrap();
    assert_eq!(leader.role(), MasterRole::Primary);
    assert!(leader.up_to_date && status.masters.iter().any(|it| it.self_ && it.up_to_date));
    drop(beats);
    pair.close().await;
}

#[tokio::test]
async fn a_rotation_waits_for_the_other_master() {
    let pair = Pair::start().await;
    let Pair { world, primary, standby, plans } = pair;
    let at = standby.port;
    standby.close().await;
    let one = world.server(&primary, "sso-server-1");
    // It is there, however long it says nothing.
    let beats = one.watch().await;
    one.catch_up().await;
    prepared(&primary);
    let mut administrator = primary.administrator();
    administrator.rotate(rotate(2, &["sso-server-2"])).await.unwrap();
    one.catch_up().await;
    let waiting = administrator.rotate(rotate(2, &[])).await.unwrap().into_inner();
    // It had the version of before, which does not count.
    assert_eq!(waiting.waiting_for.len(), 1, "{waiting:?}");
    assert!(waiting.waiting_for[0].starts_with("second: "), "{waiting:?}");
    assert!(!waiting.active);
    let warned = async {
        loop {
            let status = administrator.get_status(GetSecretStatusRequest {}).await.unwrap();
            let warnings = status.into_inner().warnings;
            if warnings.iter().any(|it| it.starts_with("the master second is away")) {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, warned).await.unwrap();

    let standby = again(&world, "second", at, &plans[1]).await;
    primary.until("it becomes active", |now| now.active == generation(2)).await;
    standby.until("it follows", |now| now.active == generation(2)).await;
    drop(beats);
    Pair { world, primary, standby, plans }.close().await;
}

#[tokio::test]
async fn a_promotion_needs_to_know_what_the_database_uses() {
    let pair = Pair::start().await;
    let Pair { world, primary, standby, .. } = &pair;
    let mut administrator = standby.administrator();
    let refused = administrator.promote(PROMOTE).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::PromotionRefused);

    // A database with a generation that this master never had.
    let server = world.server(standby, "sso-server-1");
    let mut report = facts(1, &Uuid::from_u128(1).to_string());
    report.generations = vec![crate::support::rows(5, "feed")];
    server.report(report).await.unwrap();
    let refused = administrator.promote(PROMOTE).await.unwrap_err();
    let refused = Refusal::from_status(&refused).unwrap();
    assert_eq!(refused.reason, Reason::PromotionRefused);
    assert!(refused.message.contains("5 (fingerprint feed)"), "{}", refused.message);
    assert_eq!((standby.current().epoch, primary.current().epoch), (1, 1));

    let refused = primary.administrator().promote(FORCE).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::PromotionRefused);
    let promoted = administrator.promote(FORCE).await.unwrap().into_inner();
    assert_eq!(promoted.epoch, 2);
    pair.close().await;
}

#[tokio::test]
async fn the_old_primary_steps_down_and_never_activates() {
    let pair = Pair::start().await;
    let Pair { world, primary, standby, .. } = &pair;
    let one = world.server(primary, "sso-server-1");
    one.catch_up().await;
    prepared(primary);
    primary.administrator().rotate(rotate(2, &["sso-server-2"])).await.unwrap();
    let change = primary.current().change;
    standby.until("it follows", |now| now.change == change).await;
    let other = world.server(standby, "sso-server-1");
    other.catch_up().await;
    let promoted = standby.administrator().promote(PROMOTE).await.unwrap().into_inner();
    assert_eq!(promoted.epoch, 2);

    // It hears of it, follows, and acknowledgements of its own epoch come too late.
    let now = primary.until("it steps down", |now| now.epoch == 2).await;
    assert!(!now.is_primary());
    let mut report = facts(1, &Uuid::from_u128(1).to_string());
    report.version = now.change + 10;
    one.report(report).await.unwrap();
    let refused = primary.administrator().prepare(PrepareRequest::default()).await.unwrap_err();
    let refused = Refusal::from_status(&refused).unwrap();
    assert!(refused.message.contains("the primary is second"), "{}", refused.message);
    assert_eq!(primary.current().active, generation(1));

    // The new one brings the rotation to its end.
    other.catch_up().await;
    standby.until("it becomes active", |now| now.active == generation(2)).await;
    primary.until("it follows", |now| now.active == generation(2)).await;
    pair.close().await;
}

#[tokio::test]
async fn a_primary_that_comes_back_learns_first_who_leads() {
    let pair = Pair::start().await;
    let Pair { world, primary, standby, plans } = pair;
    let one = world.server(&primary, "sso-server-1");
    one.catch_up().await;
    prepared(&primary);
    let change = primary.current().change;
    standby.until("it follows", |now| now.change == change).await;
    let at = primary.port;
    primary.close().await;
    standby.administrator().promote(FORCE).await.unwrap();
    world.server(&standby, "sso-server-1").catch_up().await;

    let primary = again(&world, "first", at, &plans[0]).await;
    // The very first call is answered by one that knows.
    let refused = primary.administrator().prepare(PrepareRequest::default()).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::NotPrimary);
    let now = primary.until("it follows", |now| now.epoch == 2).await;
    assert_eq!(now.primary, Uuid::from_u128(2));
    Pair { world, primary, standby, plans }.close().await;
}

#[tokio::test]
async fn a_primary_steps_down_when_a_server_knows_another_one() {
    let world = World::new();
    let master = world.master().await;
    let one = world.server(&master, "sso-server-1");
    one.catch_up().await;
    prepared(&master);
    let mut administrator = master.administrator();
    administrator.rotate(rotate(2, &["sso-server-2"])).await.unwrap();
    // The database has gone by another primary of the same epoch, as it decided.
    one.report(facts(1, &Uuid::from_u128(77).to_string())).await.unwrap();
    let refused = administrator.prepare(PrepareRequest::default()).await.unwrap_err();
    let refused = Refusal::from_status(&refused).unwrap();
    assert_eq!(refused.reason, Reason::NotPrimary);
    one.catch_up().await;
    let mut beats = one.watch().await;
    for _ in 0..5 {
        assert_eq!(beats.message().await.unwrap().unwrap().active_generation, 1);
    }
    let state = master.current().entry(generation(2)).unwrap().state;
    assert_eq!(state, State::Distributed);
    master.close().await;
}

#[tokio::test]
async fn a_diverged_primary_keeps_its_keystore_aside() {
    let pair = Pair::start().await;
    let Pair { world, primary, standby, plans } = pair;
    let (at, other) = (primary.port, standby.port);
    standby.close().await;
    // A key that only the old primary ever had.
    prepared(&primary);
    primary.close().await;
    let standby = again(&world, "second", other, &plans[1]).await;
    standby.administrator().promote(FORCE).await.unwrap();
    let primary = again(&world, "first", at, &plans[0]).await;
    primary.until("it follows", |now| now.epoch == 2 && now.generations.len() == 1).await;
    let aside = |name: &str| name.starts_with("first.keystore.json.aside-");
    let kept = std::fs::read_dir(world.folder.path()).unwrap();
    let kept = kept.filter(|it| aside(it.as_ref().unwrap().file_name().to_str().unwrap()));
    assert_eq!(kept.count(), 1);
    Pair { world, primary, standby, plans }.close().await;
}

#[tokio::test]
async fn a_new_standby_takes_everything_from_the_primary() {
    let world = World::new();
    world.make_keystore("first", 1);
    let (one, two) = (port().await, port().await);
    let plan = |name: &str, port: u16, settings: &str| Plan {
        peers: vec![(name.to_owned(), port)],
        settings: settings.to_owned(),
        ..Plan::default()
    };
    private(&world.path("passphrase"), "correct horse");
    let plans = [plan("second", number(&two), ""), plan("first", number(&one), "role = 'standby'")];
    let settings = Settings::load(&world.settings("second", &plans[1])).unwrap();
    let join_now = || {
        let settings = settings.clone();
        tokio::task::spawn_blocking(move || {
            join(&settings, &settings.protectors(false).unwrap()).map_err(|error| error.to_string())
        })
    };
    drop(two);
    let at = number(&one);
    drop(one);
    // Nobody is there.
    let refused = join_now().await.unwrap().unwrap_err();
    assert!(refused.contains("no [[peer]]"), "{refused}");
    assert!(!settings.keystore.exists());

    let primary = again(&world, "first", at, &plans[0]).await;
    prepared(&primary);
    let joined = join_now().await.unwrap().unwrap();
    assert_eq!((joined.primary.as_str(), joined.epoch, joined.keys), ("first", 1, 2));
    let keystore = sso_master::keystore::Keystore::read(&settings.keystore).unwrap();
    assert!(!keystore.is_primary() && keystore.member() != primary.current().member);
    let opened = tokio::task::spawn_blocking({
        let settings = settings.clone();
        move || sso_master::serve::open(&settings, &keystore).unwrap()
    });
    assert_eq!(opened.await.unwrap().ring, primary.current().ring);
    let refused = join_now().await.unwrap().unwrap_err();
    assert!(refused.contains("exists already"), "{refused}");
    primary.close().await;
}

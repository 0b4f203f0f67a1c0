use proptest::prelude::*;
use sso_core::{
    key_ring::{Generation, KeyRing},
    memory::LockedKey,
};
use time::{OffsetDateTime, macros::datetime};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    changes::{Change, Changes, FRESH},
    master::MasterSecret,
    model::{
        Account, Accounts, ApplicationFlags, ApplicationType, ConfigurationHead, ConfigurationId,
        ExternalUser, FieldUpdate, Fields, GlobalInfo, Mapping, MappingId, MappingState, Revision,
    },
    storage::{
        DatabaseSettings, DatabaseUrl, SealedCredentials, StoredConfiguration, StoredMapping,
    },
};

const NOW: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);
const MINUTE: Duration = Duration::from_secs(60);

/// A server over a database of its own.
struct Scene {
    cache: Cache,
    changes: Changes,
    storage: Storage,
    clock: Clock,
    application: Application,
    _folder: tempfile::TempDir,
}

impl Scene {
    /// On a server that holds these generations.
    async fn with_generations(numbers: &[u32]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("sso.db").display());
        let clock = Clock::manual(NOW);
        let settings = DatabaseSettings::new(DatabaseUrl::parse(&url).unwrap());
        let storage = Storage::open(&settings, clock.clone()).await.unwrap();
        storage.migrate().await.unwrap();
        let generation = |number| Generation::new(number).unwrap();
        let key = |number| LockedKey::from_bytes(&[u8::try_from(number).unwrap(); 32]).unwrap();
        let keys = numbers.iter().map(|&number| (generation(number), key(number)));
        let ring = KeyRing::new(keys, generation(*numbers.last().unwrap())).unwrap();
        let vault = Vault::new(MasterSecret::holding(ring, clock.clone()));
        let global = GlobalInfo::initial(Accounts::default(), Accounts::default());
        let access = Arc::new(Access::new(global));
        let stop = CancellationToken::new();
        let (changes, _) =
            Changes::begin(storage.clone(), Arc::clone(&access), stop).await.unwrap();
        let application = application("App");
        let mut transaction = storage.begin().await.unwrap();
        transaction.insert_application(&application).await.unwrap();
        transaction.insert_mapping(application.kind, &ann(application.id)).await.unwrap();
        transaction.commit().await.unwrap();
        let ticks = Arc::clone(changes.ticks());
        let settings = CacheSettings { megabytes: 4 };
        let cache = Cache::new(storage.clone(), access, vault, ticks, clock.clone(), settings);
        Self { cache, changes, storage, clock, application, _folder: folder }
    }

    async fn new() -> Self {
        Self::with_generations(&[1, 2]).await
    }

    /// The state of Ann's mapping, as it is found.
    async fn found(&self, refresh: bool) -> Option<MappingState> {
        let found = self.cache.mapping(&self.application, &key(), refresh).await.unwrap();
        found.map(|found| found.mapping.state)
    }

    /// Writes a state, and tells nobody.
    async fn write(&self, state: MappingState) -> MappingId {
        let mut transaction = self.storage.begin().await.unwrap();
        let held = transaction.lock_mapping(self.application.id, &key()).await.unwrap();
        let mapping = Mapping { state, ..held.unwrap().mapping };
        transaction.update_mapping(&mapping).await.unwrap();
        transaction.commit().await.unwrap();
        mapping.id
    }
}

fn application(name: &str) -> Application {
    let field =
        |ordinal, label: &str| FieldUpdate { ordinal, label: label.into(), ..Default::default() };
    let kind = ApplicationType::Individual;
    Application {
        id: ApplicationId::generate(),
        name: ApplicationName::parse(name).unwrap(),
        kind,
        description: String::new(),
        contact: String::new(),
        users: Accounts::parse(&["D\\users"]).unwrap(),
        administrators: Accounts::default(),
        administrators_same: false,
        allow_local_accounts: false,
        windows_account: None,
        flags: ApplicationFlags::default(),
        ticket_timeout: 0,
        enabled: true,
        fields: Fields::parse(kind, vec![field(0, "id"), field(1, "pw")]).unwrap().0,
        created_at: NOW,
        updated_at: NOW,
    }
}

fn mapping(application: ApplicationId, account: &str, external_user: &str) -> StoredMapping {
    StoredMapping {
        mapping: Mapping {
            id: MappingId::generate(),
            application,
            account: Account::parse(account).unwrap(),
            external_user: ExternalUser::parse(external_user).unwrap(),
            state: MappingState::Enabled,
            credentials_at: None,
            created_at: NOW,
            updated_at: NOW,
            updated_by: "D\\somebody".to_owned(),
        },
        credentials: None,
    }
}

fn ann(application: ApplicationId) -> StoredMapping {
    mapping(application, "D\\Ann", "USR01")
}

fn key() -> MappingKey {
    MappingKey::Account(Account::parse("d\\ANN").unwrap())
}

const ON: Option<MappingState> = Some(MappingState::Enabled);
const OFF: Option<MappingState> = Some(MappingState::Disabled);

#[tokio::test]
async fn what_is_remembered_is_served_until_it_is_told_of_or_asked_for_afresh() {
    let scene = Scene::new().await;
    assert_eq!(scene.found(false).await, ON);
    let id = scene.write(MappingState::Disabled).await;
    assert_eq!(scene.found(false).await, ON);
    assert_eq!(scene.found(true).await, OFF);
    assert_eq!(scene.found(false).await, OFF, "what was read afresh is remembered");
    let of = scene.application.id;
    let everything =
        [Change::Mapping(of, id), Change::Mappings(of), Change::Application(of), Change::System];
    for change in everything {
        scene.write(MappingState::Enabled).await;
        assert_eq!(scene.found(false).await, OFF);
        // Another mapping, another application.
        let other = ApplicationId::generate();
        scene.changes.made(Change::Mapping(of, MappingId::generate()), 0);
        scene.changes.made(Change::Application(other), 0);
        scene.changes.made(Change::Mappings(other), 0);
        assert_eq!(scene.found(false).await, OFF);
        scene.changes.made(change, 0);
        assert_eq!(scene.found(false).await, ON, "{change:?}");
        scene.write(MappingState::Disabled).await;
        scene.changes.made(change, 0);
        assert_eq!(scene.found(false).await, OFF, "{change:?}");
    }
    // By its other side it is another entry, which is told of alike.
    let by_user = MappingKey::ExternalUser(ExternalUser::parse("usr01").unwrap());
    let by_user = async || {
        let found = scene.cache.mapping(&scene.application, &by_user, false).await.unwrap();
        found.map(|found| found.mapping.state)
    };
    assert_eq!(by_user().await, OFF);
    scene.write(MappingState::Enabled).await;
    assert_eq!(by_user().await, OFF);
    scene.changes.made(Change::Mapping(of, id), 0);
    assert_eq!((by_user().await, scene.found(false).await), (ON, ON));
    scene.storage.close().await;
}

#[tokio::test]
async fn entries_end_and_other_applications_are_not_touched() {
    let scene = Scene::new().await;
    assert_eq!(scene.found(false).await, ON);
    scene.write(MappingState::Disabled).await;
    scene.changes.made(Change::Application(ApplicationId::generate()), 0);
    assert_eq!(scene.found(false).await, ON);
    // The timeout is an hour; the feed is read all the time meanwhile.
    scene.clock.advance(59 * MINUTE);
    scene.changes.ticks().complete_until_now(&scene.clock);
    assert_eq!(scene.found(false).await, ON);
    scene.clock.advance(MINUTE);
    scene.changes.ticks().complete_until_now(&scene.clock);
    assert_eq!(scene.found(false).await, OFF);
    // The name of one application is no name of another.
    let elsewhere = application("Elsewhere");
    assert!(scene.cache.mapping(&elsewhere, &key(), false).await.unwrap().is_none());
    scene.storage.close().await;
}

#[tokio::test]
async fn nothing_is_served_from_memory_when_the_feed_was_not_read_for_too_long() {
    let scene = Scene::new().await;
    let name = scene.application.name.clone();
    assert_eq!(scene.found(false).await, ON);
    assert!(scene.cache.application(&name, false).await.unwrap().is_some());
    scene.write(MappingState::Disabled).await;
    scene.clock.advance(FRESH - Duration::from_millis(1));
    assert_eq!(scene.found(false).await, ON);
    scene.clock.advance(Duration::from_millis(1));
    assert_eq!(scene.found(false).await, OFF);
    // Without the database there is no answer.
    scene.storage.close().await;
    let refused = scene.cache.mapping(&scene.application, &key(), false).await.unwrap_err();
    assert_eq!(refused.reason, sso_proto::Reason::DatabaseUnavailable);
    let refused = scene.cache.application(&name, false).await.unwrap_err();
    assert_eq!(refused.reason, sso_proto::Reason::DatabaseUnavailable);
    // Once the feed is read again, what was read meanwhile serves.
    scene.changes.ticks().complete_until_now(&scene.clock);
    assert_eq!(scene.found(false).await, OFF);
}

#[tokio::test]
async fn a_row_under_a_generation_that_is_gone_is_read_again() {
    for (numbers, served) in [(&[1, 2][..], true), (&[2, 3], false)] {
        let scene = Scene::with_generations(numbers).await;
        let mut row = ann(scene.application.id);
        row.mapping.state = MappingState::DisabledByAdministrator;
        row.credentials = Some(SealedCredentials { generation: 1, sealed: vec![1] });
        let hash = scene.cache.rows.hash(Name::Account(scene.application.id, "d\\ann"));
        let kept = Row::of_mapping(&row, scene.changes.ticks().now(), u32::MAX);
        scene.cache.keep(hash, kept);
        let expected = if served { Some(MappingState::DisabledByAdministrator) } else { ON };
        assert_eq!(scene.found(false).await, expected, "{numbers:?}");
        scene.storage.close().await;
    }
}

#[tokio::test]
async fn an_application_that_is_gone_is_not_the_next_one_of_its_name() {
    let scene = Scene::new().await;
    let name = ApplicationName::parse("aPP").unwrap();
    let id = async || {
        let found = scene.cache.application(&name, false).await.unwrap();
        found.map(|application| application.id)
    };
    assert_eq!(id().await, Some(scene.application.id));
    let mut transaction = scene.storage.begin().await.unwrap();
    transaction.delete_application(scene.application.id).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(id().await, Some(scene.application.id), "it was not told yet");
    scene.changes.made(Change::Application(scene.application.id), 0);
    assert_eq!(id().await, None);
    // What is not there is not remembered: a new one is found without news of it.
    let next = application("APP");
    let mut transaction = scene.storage.begin().await.unwrap();
    transaction.insert_application(&next).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(id().await, Some(next.id));
    scene.storage.close().await;
}

fn head(identifier: &str, revision: u64) -> ConfigurationHead {
    ConfigurationHead {
        id: ConfigurationId::generate(),
        identifier: Identifier::parse(identifier).unwrap(),
        revision: Revision(revision),
        deleted: false,
        updated_at: NOW,
        updated_by: String::new(),
    }
}

proptest! {
    #[test]
    fn rows_come_back_as_they_were(
        account in "[A-Za-zÄ-ÿ]{1,12}\\\\[a-zA-Z0-9Ä-ÿ]{1,30}",
        user in "[A-Za-z0-9Ä-ÿ]{1,40}",
        sealed in prop::collection::vec(any::<u8>(), 0..300),
        revision in 1_u64..,
    ) {
        let (Ok(account), Ok(user)) = (Account::parse(&account), ExternalUser::parse(&user)) else {
            return Ok(());
        };
        let of = ApplicationId::generate();
        let mut stored = ann(of);
        (stored.mapping.account, stored.mapping.external_user) = (account.clone(), user.clone());
        stored.credentials = Some(SealedCredentials { generation: 3, sealed: sealed.clone() });
        let row = Row::of_mapping(&stored, Tick::of(7), 9).unwrap();
        prop_assert!(row.is_of_account(of, account.key()));
        prop_assert!(row.is_of_external_user(of, user.key()));
        prop_assert!(!row.is_of_identifier(of, account.key()));
        prop_assert!(!row.is_of_account(ApplicationId::generate(), account.key()));
        let longer = format!("{}x", account.key());
        prop_assert!(!row.is_of_account(of, &longer));
        prop_assert_eq!((row.read(), row.until(), row.generation()), (Tick::of(7), 9, Some(3)));
        let found = row.mapping().unwrap();
        prop_assert_eq!(&found.mapping, &stored.mapping.into());
        prop_assert_eq!(found.mapping.account.as_str(), account.as_str());
        prop_assert_eq!(found.mapping.account.key(), account.key());
        prop_assert_eq!(found.mapping.external_user.as_str(), user.as_str());
        prop_assert_eq!(found.mapping.external_user.key(), user.key());
        let kept = found.sealed.unwrap();
        prop_assert_eq!(kept.as_ref(), &sealed);
        prop_assert!(row.configuration().is_none());

        let stored = StoredConfiguration { head: head(user.as_str(), revision), sealed, generation: 4 };
        let row = Row::of_configuration(of, &stored, Tick::of(7), 9).unwrap();
        prop_assert!(row.is_of_identifier(of, stored.head.identifier.key()));
        prop_assert!(row.mapping().is_none());
        let found = row.configuration().unwrap();
        prop_assert_eq!((found.id, found.revision), (stored.head.id, stored.head.revision));
        prop_assert_eq!((found.updated_at, found.identifier.as_str()), (NOW, user.as_str()));
        prop_assert_eq!(found.sealed.as_ref(), &stored.sealed);
    }
}

#[test]
fn a_mapping_without_credentials_has_none() {
    let row = Row::of_mapping(&ann(ApplicationId::generate()), Tick::of(1), 9).unwrap();
    assert!(row.mapping().unwrap().sealed.is_none() && row.generation().is_none());
}

/// Rows of mappings with 200 sealed bytes, and what the cache takes for each.
fn rows(count: u32) -> (Store<Row>, allocation_counter::AllocationInfo) {
    let of = ApplicationId::generate();
    let mut store = None;
    let taken = allocation_counter::measure(|| {
        let rows = Store::new(1 << 30, ROW);
        for number in 0..count {
            let account = format!("CONTOSO\\person{number:07}");
            let mut stored = mapping(of, &account, &format!("USR{number:05}"));
            stored.credentials = Some(SealedCredentials { generation: 1, sealed: vec![7; 200] });
            let hash = rows.hash(Name::Account(of, stored.mapping.account.key()));
            rows.keep(hash, Row::of_mapping(&stored, Tick::of(1), 9).unwrap());
        }
        store = Some(rows);
    });
    (store.unwrap(), taken)
}

#[test]
fn a_row_takes_no_more_than_it_should() {
    // The parts of the store grow by doubling: between two doublings.
    const COUNT: u32 = 50_000;
    let (store, taken) = rows(COUNT);
    assert_eq!(store.count(), usize::try_from(COUNT).unwrap());
    let each = u64::try_from(taken.bytes_current).unwrap() / u64::from(COUNT);
    println!("{each} bytes a row, weighed as {}", store.weight() / u64::from(COUNT));
    assert!(each <= 400, "{each}");
    // What the bound goes by is about the truth.
    let weighed = store.weight() / u64::from(COUNT);
    assert!(weighed.abs_diff(each) <= 40, "{weighed} for {each}");
}

#[test]
fn finding_a_row_allocates_nothing() {
    let (store, _) = rows(100);
    let of = ApplicationId::generate();
    let stored = mapping(of, "CONTOSO\\ann", "USR");
    let hash = store.hash(Name::Account(of, "contoso\\ann"));
    store.keep(hash, Row::of_mapping(&stored, Tick::of(1), 9).unwrap());
    let taken = allocation_counter::measure(|| {
        let hash = store.hash(Name::Account(of, "contoso\\ann"));
        assert!(store.find(hash).is_some_and(|row| row.is_of_account(of, "contoso\\ann")));
    });
    assert_eq!(taken.count_total, 0);
}

#[test]
fn the_bound_holds() {
    let bound = 1_000_000;
    let of = ApplicationId::generate();
    let rows = Store::new(bound, ROW);
    for number in 0..20_000 {
        let stored = mapping(of, &format!("D\\p{number}"), "U");
        let hash = rows.hash(Name::Account(of, stored.mapping.account.key()));
        rows.keep(hash, Row::of_mapping(&stored, Tick::of(1), 9).unwrap());
    }
    assert!(rows.weight() <= bound && rows.weight() > bound / 2, "{}", rows.weight());
}

fn written(revision: u64) -> StoredConfiguration {
    let head =
        ConfigurationHead { id: ConfigurationId(uuid::Uuid::nil()), ..head("one", revision) };
    StoredConfiguration { head, sealed: vec![7; 100], generation: 2 }
}

#[tokio::test]
async fn what_was_written_here_is_found_in_memory_until_somebody_changes_it() {
    let scene = Scene::new().await;
    let of = scene.application.id;
    let identifier = Identifier::parse("ONE").unwrap();
    // Nothing of this is in the database.
    let found = async || {
        let found = scene.cache.configuration(of, &identifier).await.unwrap();
        found.map(|found| found.revision.0)
    };
    let ticks = scene.changes.ticks();
    let id = written(1).head.id;
    let since = ticks.now();
    let tick = scene.changes.wrote(of, id, 1, since).unwrap();
    scene.cache.keep_written(of, &written(1), tick);
    assert_eq!(found().await, Some(1));
    // Changes of others leave it, and one of it does not.
    scene.changes.made(Change::Configuration(of, ConfigurationId::generate()), 2);
    assert_eq!(found().await, Some(1));
    scene.changes.made(Change::Configuration(of, id), 3);
    assert_eq!(found().await, None);
    // Who began before the change of another keeps nothing.
    let since = ticks.now();
    scene.changes.made(Change::Configuration(of, id), 4);
    assert_eq!(scene.changes.wrote(of, id, 5, since), None);
    // Where nothing is to be remembered this is not either.
    let global = GlobalInfo {
        credential_cache_timeout: 0,
        ..GlobalInfo::initial(Accounts::default(), Accounts::default())
    };
    scene.cache.access.adopt(global, NOW);
    let tick = scene.changes.wrote(of, id, 6, ticks.now()).unwrap();
    scene.cache.keep_written(of, &written(6), tick);
    scene.cache.access.adopt(
        GlobalInfo::initial(Accounts::default(), Accounts::default()),
        NOW + time::Duration::SECOND,
    );
    assert_eq!(found().await, None);
    scene.storage.close().await;
}

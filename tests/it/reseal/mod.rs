//! Sealing again after a rotation, and the check of every sealed value with the keys of a backup, on
//! every database.

mod check;
mod worker;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use sqlx::Connection as _;
use sso_core::{
    clock::Clock,
    derive::Fingerprint,
    key_ring::{Generation, KeyRing},
    memory::LockedKey,
    seal::Place,
    secret::SecretText,
};
use sso_proto::Reason;
use sso_server::{
    audit::{Audit, AuditSettings, AuditWriter, Writer},
    error::Error,
    master::{DatabaseFacts, Orders},
    model::{
        Account, Accounts, Application, ApplicationFlags, ApplicationId, ApplicationName,
        ApplicationType, AuditFilter, Bag, ConfigurationId, ExternalUser, FieldUpdate, Fields,
        GlobalInfo, Identifier, Mapping, MappingId, MappingState, PageRequest, Revision,
    },
    reseal::{Foundations, ResealSettings, Resealer},
    storage::{
        DatabaseSettings, DatabaseUrl, NewRevision, SealedCredentials, SealedOwner, SealedRow,
        SealedTable, Storage, StoredMapping,
    },
    vault::Resealing,
};
use sso_tests::postgres;
use tempfile::TempDir;
use time::{OffsetDateTime, macros::datetime};
use tokio::sync::watch;
use uuid::Uuid;

const NOW: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);
/// Epoch and primary that the database knows.
const LEADER: (u64, Uuid) = (1, Uuid::from_u128(2));
const BY: &str = "DEV\\admin";

fn key(number: u32) -> LockedKey {
    LockedKey::from_bytes(&[u8::try_from(number).unwrap(); 32]).unwrap()
}

/// The generations of these numbers, the last one active.
fn ring(numbers: &[u32]) -> KeyRing {
    let generation = |number: u32| Generation::new(number).unwrap();
    let keys = numbers.iter().map(|&number| (generation(number), key(number)));
    KeyRing::new(keys, generation(*numbers.last().unwrap())).unwrap()
}

/// A migrated database that knows generations 1 to 4, and its clock.
struct Scene {
    storage: Storage,
    clock: Clock,
    url: String,
}

impl Scene {
    async fn open(database: &postgres::TestDatabase, clock: Clock) -> Self {
        let settings = DatabaseSettings::new(DatabaseUrl::parse(&database.url).unwrap());
        let storage = Storage::open(&settings, clock.clone()).await.unwrap();
        storage.migrate().await.unwrap();
        let scene = Self { storage, clock, url: database.url.clone() };
        for number in 1..=4 {
            let fingerprint = Fingerprint::of(&key(number));
            scene.sql(&format!("INSERT INTO generations (generation, fingerprint, admitted_at) VALUES ({number}, '{fingerprint}', 0)")).await;
        }
        scene.system().await;
        let (epoch, primary) = LEADER;
        scene
            .sql(&format!("UPDATE system SET master_epoch = {epoch}, master_primary = '{primary}'"))
            .await;
        scene
    }

    async fn system(&self) {
        let mut transaction = self.storage.begin().await.unwrap();
        let administrators = || Accounts::parse(&["DEV\\a"]).unwrap();
        let global = GlobalInfo::initial(administrators(), administrators());
        transaction.initialise_system(&global, self.clock.now()).await.unwrap();
        transaction.commit().await.unwrap();
    }

    async fn sql(&self, text: &str) {
        sqlx::any::install_default_drivers();
        let mut connection = sqlx::AnyConnection::connect(&self.url).await.unwrap();
        let text = sqlx::AssertSqlSafe(text.to_owned());
        sqlx::raw_sql(sqlx::SqlSafeStr::into_sql_str(text)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// Rows under each generation.
    async fn counts(&self) -> Vec<(u32, u64)> {
        let counts = self.storage.count_sealed_rows().await.unwrap();
        counts.iter().map(|count| (count.generation, count.rows())).collect()
    }

    async fn rows(&self) -> Vec<SealedRow> {
        let mut rows = Vec::new();
        for table in SealedTable::ALL {
            let page = self.storage.sealed_rows(table, None, None, 100_000).await.unwrap();
            assert!(page.damaged.is_empty(), "{:?}", page.damaged);
            rows.extend(page.rows);
        }
        rows
    }

    /// The audit of a server of this name, its task, and the folder of its journal.
    fn open_audit(&self, server: &str) -> (Audit, AuditWriter, TempDir) {
        let journal = tempfile::tempdir().unwrap();
        let settings = AuditSettings::in_folder(journal.path());
        let by = Writer { system: uuid::Uuid::nil(), server };
        let opened = Audit::open(by, &settings, self.clock.clone(), self.storage.clone());
        let (audit, writer) = opened.unwrap();
        (audit, writer, journal)
    }

    /// Every row is under this generation, opens with its key alone, and has the value it was made with.
    async fn check(&self, generation: u32) {
        let ring = ring(&[generation]);
        for row in self.rows().await {
            assert_eq!(row.generation, generation, "{}", row.name());
            let opened = open(&ring, &row).unwrap();
            assert_eq!(opened, bag(&value_of(&row.owner)), "{}", row.name());
        }
    }

    async fn audited(&self) -> Vec<String> {
        let filter =
            AuditFilter { action: Some("secret.reseal".to_owned()), ..AuditFilter::default() };
        let page = self.storage.audit(&filter, &PageRequest { size: 100, after: None }).await;
        let mut records: Vec<_> = page.unwrap().entries.into_iter().collect();
        records.sort_by_key(|record| (record.at, record.id));
        records.into_iter().map(|record| format!("{}: {}", record.caller, record.detail)).collect()
    }
}

async fn on_each(test: impl AsyncFn(&Scene)) {
    for database in postgres::databases() {
        eprintln!("on {}", database.name);
        let scene = Scene::open(&database, Clock::manual(NOW)).await;
        test(&scene).await;
        scene.storage.close().await;
    }
}

fn bag(value: &str) -> Vec<u8> {
    let mut bag = Bag::default();
    bag.put(1, "Password", SecretText::new(value.to_owned())).unwrap();
    bag.encode().expose().to_vec()
}

/// What a row is made with.
fn value_of(owner: &SealedOwner) -> String {
    match owner {
        SealedOwner::Revision { identifier, revision, .. } => format!("{identifier} {revision}"),
        SealedOwner::Mapping { external_user, .. } => format!("of {external_user}"),
    }
}

/// The place of a row, written from ARCHITECTURE.md and not from the code that is tested.
fn with_place<T>(owner: &SealedOwner, then: impl FnOnce(&Place<'_>) -> T) -> T {
    let (table, row, application) = match owner {
        SealedOwner::Revision { application, configuration, identifier, revision } => {
            ("configuration_revisions", configuration.row(*revision, identifier), application)
        }
        SealedOwner::Mapping { application, kind, mapping, account, external_user } => {
            let account = (*kind != ApplicationType::HostGroup).then_some(account);
            ("mappings", mapping.row(account, external_user), application)
        }
    };
    then(&Place { table, column: "sealed", row: &row, application: application.as_bytes() })
}

fn open(ring: &KeyRing, row: &SealedRow) -> Option<Vec<u8>> {
    let opened = with_place(&row.owner, |place| ring.open(place, &row.sealed));
    opened.ok().map(|opened| opened.expose().to_vec())
}

fn seal(ring: &KeyRing, owner: &SealedOwner) -> Vec<u8> {
    with_place(owner, |place| ring.seal(place, &bag(&value_of(owner)))).unwrap()
}

async fn application(scene: &Scene, name: &str, kind: ApplicationType) -> ApplicationId {
    let field = |ordinal, label: &str| FieldUpdate {
        ordinal,
        label: label.to_owned(),
        masked: ordinal > 0,
        synchronized: false,
    };
    let fields = Fields::parse(kind, vec![field(0, "id"), field(1, "Password")]).unwrap().0;
    let application = Application {
        id: ApplicationId::generate(),
        name: ApplicationName::parse(name).unwrap(),
        kind,
        description: String::new(),
        contact: String::new(),
        users: Accounts::default(),
        administrators: Accounts::parse(&["DEV\\Admins"]).unwrap(),
        administrators_same: false,
        allow_local_accounts: false,
        windows_account: (kind == ApplicationType::HostGroup)
            .then(|| Account::parse("DEV\\host").unwrap()),
        flags: ApplicationFlags::default(),
        ticket_timeout: 0,
        enabled: true,
        fields,
        created_at: NOW,
        updated_at: NOW,
    };
    let mut transaction = scene.storage.begin().await.unwrap();
    transaction.insert_application(&application).await.unwrap();
    transaction.commit().await.unwrap();
    application.id
}

/// So many mappings in an application, sealed under the active generation of the ring.
async fn mappings(scene: &Scene, name: &str, kind: ApplicationType, many: u32, ring: &KeyRing) {
    let application = application(scene, name, kind).await;
    for chunk in (0..many).collect::<Vec<_>>().chunks(1000) {
        let mut transaction = scene.storage.begin().await.unwrap();
        for number in chunk {
            let account = match kind {
                ApplicationType::HostGroup => "DEV\\host".to_owned(),
                ApplicationType::Individual
                | ApplicationType::Group
                | ApplicationType::ConfigStore => format!("DEV\\user{number}"),
            };
            let mapping = Mapping {
                id: MappingId::generate(),
                application,
                account: Account::parse(&account).unwrap(),
                external_user: ExternalUser::parse(&format!("{name} {number}")).unwrap(),
                state: MappingState::Enabled,
                credentials_at: Some(NOW),
                created_at: NOW,
                updated_at: NOW,
                updated_by: BY.to_owned(),
            };
            let owner = SealedOwner::Mapping {
                application,
                kind,
                mapping: mapping.id,
                account: mapping.account.clone(),
                external_user: mapping.external_user.clone(),
            };
            let sealed = seal(ring, &owner);
            let generation = ring.active().number();
            let credentials = Some(SealedCredentials { generation, sealed });
            let stored = StoredMapping { mapping, credentials };
            assert!(transaction.insert_mapping(kind, &stored).await.unwrap());
        }
        transaction.commit().await.unwrap();
    }
}

/// So many revisions of one configuration.
async fn configuration(scene: &Scene, name: &str, revisions: u64, ring: &KeyRing) {
    let application = application(scene, name, ApplicationType::ConfigStore).await;
    let identifier = Identifier::parse("Production").unwrap();
    let configuration = ConfigurationId::generate();
    for number in 1..=revisions {
        let mut transaction = scene.storage.begin().await.unwrap();
        let first = number == 1
            && transaction
                .insert_configuration(configuration, application, &identifier, BY, NOW)
                .await
                .unwrap();
        if !first {
            transaction.bump_revision(application, &identifier, BY, NOW).await.unwrap().unwrap();
        }
        let revision = Revision(number);
        let owner = SealedOwner::Revision {
            application,
            configuration,
            identifier: identifier.clone(),
            revision,
        };
        let new = NewRevision {
            configuration,
            revision,
            sealed: seal(ring, &owner),
            generation: ring.active().number(),
            changed: vec!["Password".to_owned()],
            rolled_back_to: None,
            written_at: NOW,
            written_by: BY.to_owned(),
        };
        transaction.insert_revision(&new).await.unwrap();
        transaction.commit().await.unwrap();
    }
}

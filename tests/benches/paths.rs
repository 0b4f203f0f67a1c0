//! The single steps of a request that is answered from memory: opening and sealing a value, with the key of
//! its application kept and not, opening and sealing a ticket, whether a caller holds a role, and finding
//! an application and a mapping.
//!
//! `cargo bench -p sso-tests --bench paths --profile dist`

#![expect(clippy::expect_used, reason = "a bench ends where something is not as it has to be")]

use std::{collections::BTreeMap, hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::FutureExt as _;
use sso_client::certificates::{self, Authority, Request};
use sso_core::{
    clock::Clock,
    connector::ClientTls,
    key_ring::{Generation, KeyRing},
    memory::LockedKey,
    seal::Place,
    tls::{self, TlsSettings},
};
use sso_server::{
    access::{Access, Role},
    cache::{Cache, CacheSettings},
    changes::Changes,
    master::{Beginning, MasterSecret},
    model::{
        Account, Accounts, Application, ApplicationFlags, ApplicationId, ApplicationName,
        ApplicationType, Caller, ExternalUser, FieldUpdate, Fields, GlobalInfo, Mapping, MappingId,
        MappingKey, MappingState, Proof, Ticket, ticket_bytes, ticket_text,
    },
    storage::{DatabaseSettings, DatabaseUrl, Storage, StoredMapping},
    vault::Vault,
};
use time::{Duration, OffsetDateTime};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
/// Mappings that are found.
const MAPPINGS: u32 = 10_000;

const TICKETS: Place<'static> =
    Place { table: "tickets", column: "ticket", row: &[], application: &[] };

fn keys() -> KeyRing {
    let key = LockedKey::generate().expect("a key");
    KeyRing::new([(Generation::FIRST, key)], Generation::FIRST).expect("a key ring")
}

fn values(criterion: &mut Criterion) {
    let keys = keys();
    let row = [1; 40];
    let place = Place { table: "mappings", column: "sealed", row: &row, application: &[2; 16] };
    for length in [200_usize, 512] {
        let plaintext = vec![7; length];
        let sealed = keys.seal(&place, &plaintext).expect("sealed");
        let mut group = criterion.benchmark_group(format!("value of {length} bytes"));
        group.throughput(Throughput::Elements(1));
        group.bench_function("seal", |bench| {
            bench.iter(|| keys.seal(black_box(&place), black_box(&plaintext)));
        });
        group.bench_function("open", |bench| {
            bench.iter(|| keys.open(black_box(&place), black_box(&sealed)));
        });
        group.finish();
    }
    // Of another application each time: its key is derived first.
    let mut number = 0_u128;
    criterion.bench_function("value of 512 bytes/seal, key not kept", |bench| {
        bench.iter(|| {
            number += 1;
            let application = number.to_be_bytes();
            keys.seal(&Place { application: &application, ..place_of(&row) }, &[7; 512])
        });
    });
}

fn place_of(row: &[u8]) -> Place<'_> {
    Place { table: "mappings", column: "sealed", row, application: &[2; 16] }
}

fn tickets(criterion: &mut Criterion) {
    let keys = keys();
    let issued_at = Clock::System.now();
    let ticket = Ticket {
        id: Uuid::now_v7(),
        account: account(7),
        subject: None,
        by_logon: None,
        token_groups: None,
        server: "sso-server-1".to_owned(),
        issued_at,
        expires_at: issued_at + Duration::minutes(2),
        audience: None,
        validation_required: true,
    };
    let issue = |ticket: &Ticket| {
        let payload = ticket.encode().expect("a payload");
        let sealed = keys.seal(&TICKETS, payload.expose()).expect("sealed");
        ticket_text(&sealed).expect("a text")
    };
    let redeem = |text: &str| {
        let sealed = ticket_bytes(text).expect("a ticket");
        let payload = keys.open(&TICKETS, &sealed).expect("opened");
        Ticket::decode(&payload).expect("a ticket")
    };
    let text = issue(&ticket);
    let mut group = criterion.benchmark_group("ticket");
    group.bench_function("issue", |bench| bench.iter(|| issue(black_box(&ticket))));
    group.bench_function("redeem", |bench| bench.iter(|| redeem(black_box(text.expose()))));
    group.finish();
}

fn account(number: u32) -> Account {
    Account::parse(&format!("DEV\\U{number:07}")).expect("an account")
}

fn group(number: u32) -> String {
    format!("DEV\\G{number:07}")
}

fn application(users: Accounts) -> Application {
    let field = |ordinal, label: &str, masked| FieldUpdate {
        ordinal,
        label: label.to_owned(),
        masked,
        synchronized: false,
    };
    let kind = ApplicationType::Individual;
    let fields = vec![field(0, "User", false), field(1, "Secret", true)];
    Application {
        id: ApplicationId::generate(),
        name: ApplicationName::parse("Own").expect("a name"),
        kind,
        description: String::new(),
        contact: String::new(),
        users,
        administrators: Accounts::default(),
        administrators_same: false,
        allow_local_accounts: false,
        windows_account: None,
        flags: ApplicationFlags::default(),
        ticket_timeout: 0,
        enabled: true,
        fields: Fields::parse(kind, fields).expect("fields").0,
        created_at: NOW,
        updated_at: NOW,
    }
}

fn roles(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("does the caller hold a role");
    let access = Access::new(GlobalInfo::initial(Accounts::default(), Accounts::default()));
    for (accounts, groups) in [(2_u32, 4_u32), (2, 200), (200, 4), (200, 200)] {
        let in_groups = (0..groups).map(|number| {
            let name = group(number);
            (Account::parse(&name).expect("an account").key().to_owned(), name)
        });
        let caller =
            Caller::new(account(1), in_groups.collect::<BTreeMap<_, _>>(), Proof::Certificate);
        // The last one is of the caller.
        let mut listed: Vec<_> = (1..accounts).map(|number| group(1_000_000 + number)).collect();
        listed.push(group(groups - 1));
        let application = Arc::new(application(Accounts::parse(&listed).expect("accounts")));
        let role = Role::ApplicationUser;
        assert!(access.holds_in(&caller, role, &application), "the caller is a user");
        let of = format!("{accounts} accounts, {groups} groups");
        bench.bench_function(format!("{of}, worked out"), |bench| {
            bench.iter(|| access.holds(black_box(&caller), role, Some(black_box(&application))));
        });
        bench.bench_function(format!("{of}, known"), |bench| {
            bench.iter(|| access.holds_in(black_box(&caller), role, black_box(&application)));
        });
    }
    bench.finish();
}

/// A key ring that nobody hands out: what is found here is not opened.
fn vault(folder: &std::path::Path) -> Vault {
    tls::install_provider();
    let now = Clock::System.now();
    let authority =
        Authority::create("bench", Duration::days(30), false, now).expect("an authority");
    let request = Request {
        dns: vec!["localhost".to_owned()],
        ..Request::new("server", certificates::Role::Server, Duration::days(3))
    };
    let files = authority.issue(&request, now).expect("a certificate");
    let (certificate, key) = files.write(folder, "server", true).expect("written");
    let ca = folder.join("ca.crt");
    std::fs::write(&ca, authority.certificate()).expect("written");
    let tls = ClientTls::load(&TlsSettings::new(certificate, key, ca)).expect("TLS");
    let settings = toml::from_str("urls = [\"https://127.0.0.1:1\"]").expect("settings");
    let admit = Box::new(|_| async { Ok(()) }.boxed());
    let (secret, _) =
        MasterSecret::new(&settings, &tls, Clock::System, Beginning::default(), admit)
            .expect("no keys yet");
    Vault::new(secret)
}

fn finding(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let stop = CancellationToken::new();
    let (cache, application, keys) = runtime.block_on(async {
        let url = format!("sqlite:{}", folder.path().join("sso.db").display());
        let settings = DatabaseSettings::new(DatabaseUrl::parse(&url).expect("a URL"));
        let storage = Storage::open(&settings, Clock::System).await.expect("open");
        storage.migrate().await.expect("migrated");
        let application = application(Accounts::parse(&["D\\users"]).expect("accounts"));
        let mut transaction = storage.begin().await.expect("begun");
        transaction.insert_application(&application).await.expect("inserted");
        let mut keys = Vec::new();
        for number in 0..MAPPINGS {
            let mapping = mapping(application.id, number);
            keys.push(MappingKey::Account(mapping.mapping.account.clone()));
            transaction.insert_mapping(application.kind, &mapping).await.expect("inserted");
        }
        transaction.commit().await.expect("committed");
        let global = GlobalInfo::initial(Accounts::default(), Accounts::default());
        let access = Arc::new(Access::new(global));
        let (changes, reader) = Changes::begin(storage.clone(), Arc::clone(&access), stop.clone())
            .await
            .expect("begun");
        tokio::spawn(reader.run(stop.clone()));
        let ticks = Arc::clone(changes.ticks());
        let vault = vault(folder.path());
        let cache =
            Cache::new(storage, access, vault, ticks, Clock::System, CacheSettings::default());
        for key in &keys {
            cache.mapping(&application, key, false).await.expect("read").expect("a mapping");
        }
        cache.application(&application.name, false).await.expect("read").expect("one");
        (cache, application, keys)
    });
    let _inside = runtime.enter();
    let mut group = criterion.benchmark_group("found in memory");
    group.bench_function("application", |bench| {
        // A hit waits for nothing.
        bench.iter(|| {
            cache.application(black_box(&application.name), false).now_or_never().is_some()
        });
    });
    let mut next = keys.iter().cycle();
    group.bench_function("mapping of 10 000", |bench| {
        bench.iter(|| {
            let key = next.next().expect("a key");
            let found = cache.mapping(black_box(&application), key, false).now_or_never();
            found.expect("a hit").expect("read").is_some()
        });
    });
    group.finish();
    stop.cancel();
}

fn mapping(application: ApplicationId, number: u32) -> StoredMapping {
    let mapping = Mapping {
        id: MappingId::generate(),
        application,
        account: account(number),
        external_user: ExternalUser::parse(&format!("E{number:07}")).expect("a name"),
        state: MappingState::Enabled,
        credentials_at: None,
        created_at: NOW,
        updated_at: NOW,
        updated_by: "DEV\\admin".to_owned(),
    };
    StoredMapping { mapping, credentials: None }
}

criterion_group!(benches, values, tickets, roles, finding);
criterion_main!(benches);

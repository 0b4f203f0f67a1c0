//! The single steps of a request that is answered from memory: opening and sealing a value, opening and
//! sealing a ticket, and the look whether a caller is among the accounts of an application.
//!
//! `cargo bench -p sso-tests --bench paths --profile dist`

#![expect(clippy::expect_used, reason = "a bench ends where something is not as it has to be")]

use std::{collections::BTreeMap, hint::black_box};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sso_core::{
    clock::Clock,
    key_ring::{Generation, KeyRing},
    memory::LockedKey,
    seal::Place,
};
use sso_server::model::{Account, Accounts, Caller, Proof, Ticket, ticket_bytes, ticket_text};
use time::Duration;
use uuid::Uuid;

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

fn membership(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("is the caller among the accounts");
    for (accounts, groups) in [(2_u32, 4_u32), (2, 200), (200, 4), (200, 200)] {
        let parsed = |name: String| Account::parse(&name).expect("an account");
        let in_groups = (0..groups).map(|number| {
            let name = group(number);
            (parsed(name.clone()).key().to_owned(), name)
        });
        let caller = Caller {
            account: account(1),
            groups: in_groups.collect::<BTreeMap<_, _>>(),
            proof: Proof::Certificate,
        };
        // The last one is of the caller.
        let mut listed: Vec<_> = (1..accounts).map(|number| group(1_000_000 + number)).collect();
        listed.push(group(groups - 1));
        let listed = Accounts::parse(&listed).expect("accounts");
        bench.bench_function(format!("{accounts} accounts, {groups} groups"), |bench| {
            bench.iter(|| black_box(&caller).is_in(black_box(&listed)));
        });
    }
    bench.finish();
}

criterion_group!(benches, values, tickets, membership);
criterion_main!(benches);

//! Every sealed value, opened with the keys of a backup.

use prost::Message as _;
use sso_core::transit;
use sso_proto::v1::{GenerationKey, KeyRingTransfer};
use sso_server::{
    access::{Access, Call},
    model::{Caller, GlobalInfo, Proof},
    sealed_rows::{CheckProgress, SealedRowsCheck},
};
use tokio_util::sync::CancellationToken;

use super::*;

fn call(account: &str) -> Call {
    let account = Account::parse(account).unwrap();
    let caller = Caller::new(account, std::collections::BTreeMap::new(), Proof::Certificate);
    Call {
        caller: Arc::new(caller),
        request_id: uuid::Uuid::from_u128(5),
        local: true,
        change: None,
    }
}

/// A server whose SSO administrators are `DEV\ann` and `DEV\bob`.
fn server(scene: &Scene, stop: &CancellationToken) -> (SealedRowsCheck, Audit, TempDir) {
    let administrators = Accounts::parse(&["DEV\\ann", "DEV\\bob"]).unwrap();
    let access = Arc::new(Access::new(GlobalInfo::initial(administrators, Accounts::default())));
    let (audit, writer, journal) = scene.open_audit("one");
    tokio::spawn(writer.run(stop.clone()));
    let (storage, clock) = (scene.storage.clone(), scene.clock.clone());
    (SealedRowsCheck::new(access, audit.clone(), storage, clock), audit, journal)
}

/// The keys of these generations, sealed as the master does.
fn sealed(public: &[u8], numbers: &[u32]) -> Vec<u8> {
    let transfer = KeyRingTransfer {
        generations: numbers
            .iter()
            .map(|&generation| GenerationKey { generation, key: key(generation).expose().to_vec() })
            .collect(),
        active_generation: *numbers.last().unwrap(),
    };
    transit::seal_to(public, transit::CHECK, &transfer.encode_to_vec()).unwrap()
}

/// What a check with these keys says at its end, and every name.
async fn check(
    server: &SealedRowsCheck,
    who: &str,
    numbers: &[u32],
) -> Result<(CheckProgress, Vec<String>), Reason> {
    let call = call(who);
    let (id, public) = server.begin(&call).map_err(|error| error.reason)?;
    let keys = sealed(&public, numbers);
    let checking = server.check(&call, &id.to_string(), &keys).await;
    let mut news = checking.map_err(|error| error.reason)?;
    let (mut last, mut names) = (CheckProgress::default(), Vec::new());
    while let Some(progress) = news.recv().await {
        last = progress.map_err(|error| error.reason)?;
        names.append(&mut last.names);
    }
    Ok((last, names))
}

async fn records(audit: &Audit) -> Vec<(String, String)> {
    let filter =
        AuditFilter { action: Some("secret.check-rows".to_owned()), ..AuditFilter::default() };
    let page = audit.list(&filter, &PageRequest { size: 100, after: None }).await;
    page.unwrap().entries.into_iter().map(|record| (record.caller, record.detail)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_opens_every_row_or_the_rows_are_named() {
    on_each(async |scene| {
        let stop = CancellationToken::new();
        let (server, audit, _journal) = server(scene, &stop);
        mappings(scene, "Single", ApplicationType::Individual, 700, &ring(&[1])).await;
        mappings(scene, "Host", ApplicationType::HostGroup, 5, &ring(&[2])).await;
        configuration(scene, "Settings", 3, &ring(&[2])).await;
        let whole = |opened, failed| CheckProgress {
            total: 708,
            opened,
            failed,
            names: Vec::new(),
            done: true,
        };
        let (last, names) = check(&server, "DEV\\ann", &[1, 2]).await.unwrap();
        assert_eq!((last, names), (whole(708, 0), Vec::<String>::new()));
        assert_eq!(
            records(&audit).await,
            [("DEV\\ann".to_owned(), "complete: 708 of 708 rows opened, 0 did not".to_owned())]
        );
        // A backup of before the rotation.
        let (last, names) = check(&server, "DEV\\ann", &[1]).await.unwrap();
        assert_eq!((last, names.len()), (whole(700, 8), 8));
        let of_history = names
            .iter()
            .find(|name| name.starts_with("configuration Settings/Production revision 2: "));
        assert!(of_history.is_some_and(|name| name.contains("generation 2")), "{names:?}");
        // Damage is another matter.
        scene.sql("UPDATE mappings SET external_user = 'moved', external_user_key = 'moved', unique_external_user_key = 'moved' WHERE account = 'DEV\\user7'").await;
        let (last, names) = check(&server, "DEV\\bob", &[1, 2]).await.unwrap();
        assert_eq!((last, names.len()), (whole(707, 1), 1));
        assert!(names[0].starts_with("mapping Single/DEV\\user7: "), "{names:?}");
        // Another system: no row opens, and the first thousand are named.
        let (last, names) = check(&server, "DEV\\bob", &[3]).await.unwrap();
        assert_eq!((last, names.len()), (whole(0, 708), 708));
        assert_eq!(records(&audit).await.len(), 4);
        stop.cancel();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_is_for_whoever_began_it_once_and_soon() {
    on_each(async |scene| {
        let stop = CancellationToken::new();
        let (server, _audit, _journal) = server(scene, &stop);
        let (ann, bob) = (call("DEV\\ann"), call("DEV\\bob"));
        let reason = |error: Error| error.reason;
        assert_eq!(check(&server, "DEV\\eve", &[1]).await, Err(Reason::NotSsoAdministrator));
        let (id, public) = server.begin(&ann).unwrap();
        let (id, keys) = (id.to_string(), sealed(&public, &[1]));
        let not_found = Some(Reason::SealedRowsCheckNotFound);
        for (who, id) in [(&bob, &*id), (&ann, "no id"), (&ann, "")] {
            assert_eq!(server.check(who, id, &keys).await.err().map(reason), not_found);
        }
        assert!(server.check(&ann, &id, &keys).await.is_ok());
        assert_eq!(server.check(&ann, &id, &keys).await.err().map(reason), not_found);
        // Keys that were sealed to another, or changed.
        let (id, _) = server.begin(&ann).unwrap();
        let refused = server.check(&ann, &id.to_string(), &keys).await.err().map(reason);
        assert_eq!(refused, Some(Reason::InvalidRequest));
        // Too late, and too many.
        let (id, public) = server.begin(&ann).unwrap();
        scene.clock.advance(Duration::from_secs(600));
        let late = server.check(&ann, &id.to_string(), &sealed(&public, &[1])).await;
        assert_eq!(late.err().map(reason), not_found);
        for _ in 0..8 {
            server.begin(&ann).unwrap();
        }
        assert_eq!(server.begin(&bob).err().map(reason), Some(Reason::Overloaded));
        scene.clock.advance(Duration::from_secs(600));
        assert!(server.begin(&bob).is_ok());
        stop.cancel();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_ends_when_its_caller_goes() {
    on_each(async |scene| {
        let stop = CancellationToken::new();
        let (server, audit, _journal) = server(scene, &stop);
        mappings(scene, "Single", ApplicationType::Individual, 1200, &ring(&[1])).await;
        let ann = call("DEV\\ann");
        let (id, public) = server.begin(&ann).unwrap();
        let news = server.check(&ann, &id.to_string(), &sealed(&public, &[1])).await.unwrap();
        drop(news);
        for _ in 0..500 {
            if !records(&audit).await.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let records = records(&audit).await;
        assert!(records[0].1.starts_with("ended by the caller"), "{records:?}");
        stop.cancel();
    })
    .await;
}

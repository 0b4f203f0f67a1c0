//! Single figures: how long a start takes, how long news take, how much memory things need.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use sso_client::development::Probe;
use sso_tests::load::{
    accounting::{Group, Snapshot, resident_kib},
    call::call,
    drive::Plan,
    report::{Figure, Report},
    round::{Middle, SERVER, measure},
    stand::{STORE, Stand},
    watchers::{Watchers, idle},
};

use crate::{
    options::{MemoryOptions, OverloadOptions, StartOptions, WatchOptions},
    run::{each_stand, show},
};

/// A start has to end within this.
const START_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(20);

fn figure(name: String, values: impl IntoIterator<Item = f64>, unit: &str) -> Figure {
    let figure = Figure { name, value: Middle::of(values), unit: unit.to_owned() };
    eprintln!("{:<58} {:.2} {unit}", figure.name, figure.value.median);
    figure
}

/// From the start of the process until it says that it is ready.
pub(crate) fn start(options: &StartOptions) -> Result<(), String> {
    let mut report = Report::of_this_machine();
    each_stand(&options.stand, &[STORE], |stand| {
        stand.system.stop_server(1);
        let mut times = Vec::new();
        for _ in 0..options.rounds {
            let begun = Instant::now();
            let mut server =
                stand.system.installation().start_server(1).map_err(|error| error.to_string())?;
            while Probe::Ready.ask(server.operations()).is_err() {
                if begun.elapsed() > START_WITHIN {
                    return Err(format!("not ready within {START_WITHIN:?}"));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            times.push(begun.elapsed().as_secs_f64() * 1000.0);
            server.stop(STOP_WITHIN).ok_or("the server had to be killed")?;
        }
        let name = format!("start to ready, {}", described(stand));
        report.figures.push(figure(name, times, "ms"));
        Ok(())
    })?;
    show(&report, &options.report)
}

fn described(stand: &Stand) -> String {
    format!("{} {} rows", stand.wanted.database.name(), stand.wanted.mappings)
}

/// From a write until the last of many watchers was told.
pub(crate) fn watch(options: &WatchOptions) -> Result<(), String> {
    let mut report = Report::of_this_machine();
    each_stand(&options.stand, &[STORE], |stand| {
        let server = stand.system.server(1).id();
        for count in &options.watchers {
            let watchers =
                stand.block_on(Watchers::open(stand, *count, options.connections.min(*count)))?;
            let groups = [Group::of(SERVER, server)];
            let before = Snapshot::take(&groups);
            let mut times = Vec::new();
            for number in 0..options.rounds {
                let took = stand.block_on(watchers.tell(stand, number))?;
                times.push(took.as_secs_f64() * 1000.0);
            }
            let spent = before.until(&Snapshot::take(&groups), Duration::from_secs(1));
            let spent = spent.groups.get(SERVER).copied().unwrap_or_default();
            let told = (options.rounds * count).max(1);
            let what = format!("{count} watchers, {}", described(stand));
            report.figures.push(figure(format!("write to the last of {what}"), times, "ms"));
            let each = spent.as_secs_f64() * 1e6 / told as f64;
            report.figures.push(figure(format!("server CPU for each of {what}"), [each], "µs"));
        }
        Ok(())
    })?;
    show(&report, &options.report)
}

/// Resident memory of the server: idle, for each row read, connection and watcher.
pub(crate) fn memory(options: &MemoryOptions) -> Result<(), String> {
    let mut report = Report::of_this_machine();
    each_stand(&options.stand, &[STORE], |stand| {
        let server = stand.system.server(1).id();
        let kib = || resident_kib(server) as f64;
        let what = described(stand);
        let empty = kib();
        report.figures.push(figure(format!("idle, {what}"), [empty / 1024.0], "MiB"));
        let (half, all) = (stand.wanted.mappings / 2, stand.wanted.mappings);
        read_rows(stand, 0..half)?;
        let some = kib();
        read_rows(stand, half..all)?;
        let rows = kib();
        // What reading takes by itself, such as the pages that SQLite keeps, is there after the first half.
        let each = (rows - some) * 1024.0 / (all - half).max(1) as f64;
        if all > 0 && each < stand.wanted.value as f64 {
            return Err(
                "the rows do not all fit in the memory of the cache: fewer or smaller ones".into(),
            );
        }
        let name = format!("for each row of {} B that was read, {what}", stand.wanted.value);
        report.figures.push(figure(name, [each], "B"));
        report.figures.push(figure(format!("all rows read, {what}"), [rows / 1024.0], "MiB"));
        let connections = stand.block_on(idle(stand, options.connections))?;
        let idle = kib();
        let each = (idle - rows) / options.connections.max(1) as f64;
        let name = format!("for each of {} idle connections", options.connections);
        report.figures.push(figure(name, [each], "KiB"));
        let watchers =
            stand.block_on(Watchers::open(stand, options.watchers, stand.users().len()))?;
        let each = (kib() - idle) / options.watchers.max(1) as f64;
        let name = format!("for each of {} watchers", options.watchers);
        report.figures.push(figure(name, [each], "KiB"));
        report.figures.push(figure("with all of them".to_owned(), [kib() / 1024.0], "MiB"));
        drop((connections, watchers));
        Ok(())
    })?;
    show(&report, &options.report)
}

/// Reads configurations once each, in the order of their numbers.
pub(crate) fn read_rows(stand: &Stand, numbers: Range<u64>) -> Result<(), String> {
    use prost::Message as _;
    use sso_proto::v1;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tonic::codegen::http::uri::PathAndQuery;

    let (next, end) = (AtomicU64::new(numbers.start), numbers.end);
    let (url, users) = (stand.url(), stand.users());
    let path = PathAndQuery::from_static("/sso.v1.ConfigStore/Get");
    let reader = |number: usize| {
        let tls = users.get(number).ok_or("a user")?.clone();
        let channel = sso_core::connector::connect_channel(&url, tls, Default::default())
            .map_err(|error| error.to_string())?;
        Ok::<_, String>(channel)
    };
    stand.block_on(async {
        let reading = (0..32).map(|number| {
            let (next, path, channel) = (&next, &path, reader(number));
            async move {
                let channel = channel?;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        return Ok::<_, String>(());
                    }
                    let message = v1::GetConfigurationRequest {
                        application: STORE.into(),
                        identifier: format!("C{number:07}"),
                        mode: v1::ReadMode::Runtime.into(),
                        fields: Vec::new(),
                    };
                    let answer = call(&channel, path, message.encode_to_vec().into()).await;
                    answer.map_err(|status| status.to_string())?;
                }
            }
        });
        futures_util::future::try_join_all(reading).await.map(drop)
    })
}

/// Offers several times of what the server can do: what it still does, and how fast it refuses the rest.
pub(crate) fn overload(options: &OverloadOptions) -> Result<(), String> {
    let mut report = Report::of_this_machine();
    each_stand(&options.stand, options.workload.touches(), |stand| {
        let server = stand.system.server(1).id();
        let groups = stand.groups(server);
        let stand = &*stand;
        let plan = |in_flight: usize, rate: Option<f64>| {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let parts = options.workload.parts(stand, 48, in_flight, 1);
            let duration = Duration::from_secs_f64(options.seconds);
            Plan { rate, refusals: true, ..Plan::new(cores, duration, parts) }
        };
        let (mut goodput, mut refused, mut p99) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            let peak = measure(|| plan(256, None), &groups)?.per_second;
            let over = measure(|| plan(options.in_flight, Some(peak * options.times)), &groups)?;
            goodput.push(over.per_second / peak);
            refused.push(over.refused_per_second / peak);
            p99.push(over.refused_p99 / 1000.0);
        }
        let what = format!(
            "{} × capacity, {}, {}",
            options.times,
            options.workload.name(),
            described(stand)
        );
        report.figures.push(figure(format!("goodput ÷ peak, {what}"), goodput, ""));
        report.figures.push(figure(format!("refused ÷ peak, {what}"), refused, ""));
        report.figures.push(figure(format!("p99 of refusals, {what}"), p99, "ms"));
        Ok(())
    })?;
    show(&report, &options.report)
}

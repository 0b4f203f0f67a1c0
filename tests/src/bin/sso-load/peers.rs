//! Ours, the echo and what else somebody could keep secrets in, in turn.

use std::{thread, time::Duration};

use sso_tests::load::{
    drive::{Part, Plan},
    peers::{self, Ask, Identity, Peer, Shape},
    report::{ECHO, Report, SSO, Series, Subject},
    round::{Round, measure},
    stand::{STORE, Stand},
    workload::{Workload, sizes},
    yardstick::Yardstick,
};

use crate::{
    options::PeersOptions,
    run::{each_stand, show},
};

pub(crate) fn peers(options: &PeersOptions) -> Result<(), String> {
    let mut report = Report::of_this_machine();
    each_stand(&options.stand, &[STORE], |stand| beside(options, stand, &mut report))?;
    show(&report, &options.report)
}

fn beside(options: &PeersOptions, stand: &mut Stand, report: &mut Report) -> Result<(), String> {
    let yardstick = Yardstick::start(stand);
    let mut shape = Shape {
        keys: stand.wanted.mappings.max(1),
        value: stand.wanted.value,
        connections: options.connections,
        in_flight: 1,
        duration: Duration::from_secs_f64(options.seconds),
        threads: thread::available_parallelism().map_or(1, usize::from),
    };
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (peers, absent) = peers::start(&Identity::make(folder.path()), &shape)?;
    for name in absent {
        eprintln!("left out: {name} is not installed here");
    }
    for in_flight in &options.in_flight {
        shape.in_flight = *in_flight;
        for ask in [Ask::Read, Ask::Write] {
            let series = in_turn(options, &shape, ask, stand, &yardstick, &peers)?;
            let one = Report { series: vec![series.clone()], ..report.clone() };
            eprintln!("{}", one.table(false));
            report.series.push(series);
        }
    }
    Ok(())
}

fn in_turn(
    options: &PeersOptions,
    shape: &Shape,
    ask: Ask,
    stand: &mut Stand,
    yardstick: &Yardstick,
    peers: &[Box<dyn Peer>],
) -> Result<Series, String> {
    let workload = match ask {
        Ask::Read => Workload::GetConfiguration,
        Ask::Write => Workload::SetConfiguration,
    };
    let connections = shape.connections.min(shape.in_flight);
    let parts = workload.parts(stand, connections, shape.in_flight, 1);
    let sizes = stand.block_on(sizes(&parts))?;
    let echo = yardstick.instead_of(&parts, sizes.0, sizes.1);
    let threads = shape.threads.min(connections);
    let plan = |parts: &[Part]| Plan::new(threads, shape.duration, parts.to_vec());
    let server = stand.system.server(1).id();
    let (of_echo, of_server) = (stand.groups(yardstick.id()), stand.groups(server));
    let mut subjects: Vec<(String, Vec<Round>)> = vec![(ECHO.into(), vec![]), (SSO.into(), vec![])];
    for peer in peers {
        let ways = peer.ways(ask).iter();
        subjects.extend(ways.map(|way| ((*way).to_owned(), Vec::new())));
    }
    for _ in 0..options.rounds {
        let mut rounds =
            vec![measure(|| plan(&echo), &of_echo)?, measure(|| plan(&parts), &of_server)?];
        for peer in peers {
            let process = peer.process();
            let mut groups = stand.groups(process.processes.first().copied().unwrap_or_default());
            if let Some(first) = groups.first_mut() {
                *first = process;
            }
            for way in peer.ways(ask) {
                rounds.push(peer.round(way, ask, shape, &groups)?);
            }
        }
        for ((_, of), round) in subjects.iter_mut().zip(rounds) {
            of.push(round);
        }
    }
    Ok(Series {
        workload: workload.name().to_owned(),
        database: stand.wanted.database.name().to_owned(),
        mappings: stand.wanted.mappings,
        value: stand.wanted.value,
        connections,
        in_flight: shape.in_flight,
        rate: None,
        rotating: false,
        seconds: options.seconds,
        sizes,
        subjects: subjects.into_iter().map(|(name, rounds)| Subject { name, rounds }).collect(),
    })
}

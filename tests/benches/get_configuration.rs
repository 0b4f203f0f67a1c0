//! `ConfigStore.Get` in runtime mode, all checks and the durable audit on, beside a bare tonic echo
//! over the same mutual TLS with messages of the same size, interleaved in one run.
//!
//! `cargo bench -p sso-tests --bench get_configuration --profile dist` after building the programs
//! with that profile. `SECONDS` and `ROUNDS` may be given as arguments behind `--`.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench prints, and ends where something is not as it has to be"
)]

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use sso_core::connector::{ClientTls, ConnectOptions, connect_channel};
use sso_core::tls::TlsSettings;
use sso_proto::v1::{GetConfigurationRequest, ReadMode, config_store_client::ConfigStoreClient};
use sso_tests::{
    echo,
    load::{Round, closed_loop, processor_time},
    postgres,
    system::{Database, System},
};
use tonic::transport::Channel;

const CONNECTIONS: usize = 8;
const VALUE: usize = 512;
const APPLICATION: &str = "Bench";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [mode, certificate, key, ca] = arguments.as_slice()
        && mode == "echo"
    {
        let paths = [certificate, key, ca].map(PathBuf::from);
        runtime().block_on(echo::serve(&paths[0], &paths[1], &paths[2]));
        return;
    }
    let number = |index: usize, default: u64| {
        arguments.get(index).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (seconds, rounds) = (number(0, 5), number(1, 5));
    let mut databases = vec![("sqlite", Database::Sqlite)];
    if let Some(url) = postgres::database() {
        databases.push(("postgresql", Database::Postgres(url)));
    }
    for (name, database) in databases {
        measure(name, database, Duration::from_secs(seconds), rounds);
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

fn measure(name: &str, database: Database, duration: Duration, rounds: u64) {
    let mut system = System::start(database);
    prepare(&system);
    let server = system.server(1).id();
    let (yardstick, address) = start_echo(&system);
    let runtime = runtime();
    println!(
        "\n{name}: TLS 1.3 mutual, {CONNECTIONS} connections, value {VALUE} B, audit durable in the database, no row cache"
    );
    println!("in flight | what | requests/s | p50 | p99 | server CPU/request");
    for in_flight in [1, 64] {
        let (mut echoes, mut reads) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            runtime.block_on(async {
                let ours = channels(&system, &system.profile("user").addr);
                let theirs = channels(&system, &format!("https://{address}"));
                echoes.push(echo_round(in_flight, duration, yardstick.id(), theirs).await);
                reads.push(read_round(in_flight, duration, server, ours).await);
            });
        }
        show(in_flight, "echo", &mut echoes);
        show(in_flight, "get", &mut reads);
        let mut ratios: Vec<f64> = reads
            .iter()
            .zip(&echoes)
            .map(|(read, echo)| read.per_second / echo.per_second)
            .collect();
        ratios.sort_by(f64::total_cmp);
        println!(
            "{in_flight:>9} | ratio of medians ordered by rate: {:.3}",
            ratios[ratios.len() / 2]
        );
    }
    drop(yardstick);
}

/// Ends the echo with the bench.
struct Yardstick(Child);

impl Yardstick {
    fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Yardstick {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_echo(system: &System) -> (Yardstick, String) {
    let tls = server_tls(system);
    let mut child = Command::new(std::env::current_exe().expect("the path of the bench"))
        .arg("echo")
        .args([&tls.certificate, &tls.key, &tls.ca])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the echo starts");
    let mut address = String::new();
    let stdout = child.stdout.take().expect("a pipe");
    BufReader::new(stdout).read_line(&mut address).expect("the address of the echo");
    (Yardstick(child), address.trim().to_owned())
}

fn server_tls(system: &System) -> TlsSettings {
    #[derive(serde::Deserialize)]
    struct Settings {
        tls: TlsSettings,
    }
    let path = system.installation().server_settings(1);
    let text = std::fs::read_to_string(&path).expect("the settings of the server");
    let settings: Settings = toml::from_str(&text).expect("settings");
    settings.tls.resolve(path.parent().expect("a folder"))
}

fn channels(system: &System, url: &str) -> Vec<Channel> {
    let profile = system.profile("user");
    let tls = TlsSettings {
        allow_development: true,
        ..TlsSettings::new(
            profile.cert.expect("a file"),
            profile.key.expect("a file"),
            profile.ca.expect("a file"),
        )
    };
    let tls = ClientTls::load(&tls).expect("the certificates of a user");
    (0..CONNECTIONS)
        .map(|_| connect_channel(url, tls.clone(), ConnectOptions::default()).expect("a channel"))
        .collect()
}

fn prepare(system: &System) {
    system.create_application(APPLICATION, &["Secret:masked"]);
    let values = format!("{{\"Secret\":\"{}\"}}", "s".repeat(VALUE));
    let output = system.sso_with_input(
        "app-admin",
        &["config", "set", APPLICATION, "Bench", "--values", "-"],
        &values,
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn echo_round(tasks: usize, duration: Duration, pid: u32, channels: Vec<Channel>) -> Round {
    let task = |index: usize| {
        let channel = channels[index % CONNECTIONS].clone();
        move || {
            let channel = channel.clone();
            async move {
                let message = echo::Message { bytes: vec![b'q'; 64], answer: 640 };
                echo::call(&channel, message).await.map(drop)
            }
        }
    };
    closed_loop(tasks, duration, || processor_time(pid), task).await
}

async fn read_round(tasks: usize, duration: Duration, pid: u32, channels: Vec<Channel>) -> Round {
    let task = |index: usize| {
        let client = ConfigStoreClient::new(channels[index % CONNECTIONS].clone());
        move || {
            let mut client = client.clone();
            async move {
                let request = GetConfigurationRequest {
                    application: APPLICATION.into(),
                    identifier: "Bench".into(),
                    mode: ReadMode::Runtime.into(),
                    fields: Vec::new(),
                };
                client.get(request).await.map(drop)
            }
        }
    };
    closed_loop(tasks, duration, || processor_time(pid), task).await
}

fn show(in_flight: usize, what: &str, rounds: &mut [Round]) {
    let mut ordered = rounds.to_vec();
    ordered.sort_by(|one, other| one.per_second.total_cmp(&other.per_second));
    let median = ordered[ordered.len() / 2];
    println!(
        "{in_flight:>9} | {what:<4} | {:>10.0} ({:.0}–{:.0}) | {:>8.3?} | {:>8.3?} | {:.1?}",
        median.per_second,
        ordered.first().map_or(0.0, |round| round.per_second),
        ordered.last().map_or(0.0, |round| round.per_second),
        median.p50,
        median.p99,
        median.server_cpu,
    );
}

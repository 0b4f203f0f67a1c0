//! `sso dev` itself: what it makes, what it leaves, and how it ends.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use sso_tests::system::{Database, System, eventually, programs};

const SOON: Duration = Duration::from_secs(30);

fn dev() -> Command {
    let mut command = Command::new(programs().client);
    command.arg("dev").env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    for name in ["SSO_CONFIG", "SSO_PROFILE", "SSO_ADDR", "SSO_CA", "SSO_CERT", "SSO_KEY"] {
        command.env_remove(name);
    }
    command
}

fn text(output: &Output) -> String {
    let (stdout, stderr) = (&output.stdout, &output.stderr);
    format!("{}\n{}", String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr))
}

#[test]
fn a_command_finds_the_system_and_gives_its_exit_code() {
    let script = "set -e; sso status --output json; ls -d \"$(dirname \"$SSO_CONFIG\")\"; \
                  test -r \"$SSO_KEY\"; test -n \"$SSO_ADDR$SSO_CA$SSO_CERT\"; exit 7";
    let output = dev().args(["--", "sh", "-c", script]).output().expect("sso dev runs");
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains(r"DEV\\admin"), "{stdout}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("ready in "), "{}", text(&output));
    let folder = stdout.lines().last().expect("the folder");
    assert!(!Path::new(folder).exists(), "{folder} is left behind");

    let killed = dev().args(["--", "sh", "-c", "kill -9 $$"]).output().expect("sso dev runs");
    assert_eq!(killed.status.code(), Some(137), "{}", text(&killed));
}

#[test]
fn a_second_start_finds_the_data_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |arguments: &[&str]| {
        let output = dev().arg("--dir").arg(folder.path()).arg("--").args(arguments).output();
        let output = output.expect("sso dev runs");
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/order-routing.xml");
    let example = example.to_str().expect("UTF-8");
    run(&["sso", "--profile", "affiliate-admin", "app", "create", "--file", example]);
    let values = folder.path().join("values.json");
    let json = r#"{"RoutingServiceUrl":"a","RetryLimit":"b","PartnerApiKey":"c","ArchiveConnectionString":"d"}"#;
    fs::write(&values, json).expect("values written");
    let values = values.to_str().expect("UTF-8");
    let app = "OrderRouting.Settings";
    run(&["sso", "--profile", "app-admin", "config", "set", app, "x", "--values", values]);
    let get = ["sso", "--profile", "user", "config", "get", app, "x", "PartnerApiKey", "--reveal"];
    assert_eq!(run(&get).trim(), "c");
}

#[test]
fn the_programs_end_when_sso_dev_is_killed() {
    let mut child = dev()
        .args(["--output", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("sso dev runs");
    let mut document = String::new();
    for line in BufReader::new(child.stdout.take().expect("its output")).lines() {
        let line = line.expect("UTF-8");
        document.push_str(&line);
        if line == "}" {
            break;
        }
    }
    let made: serde_json::Value = serde_json::from_str(&document).expect("JSON");
    let addresses = ["server", "master"].map(|name| {
        made[name]
            .as_str()
            .and_then(|url| url.strip_prefix("https://"))
            .expect("an address")
            .to_owned()
    });
    for address in &addresses {
        TcpStream::connect(address).expect("it listens");
    }
    child.kill().expect("killed");
    child.wait().expect("gone");
    for address in &addresses {
        eventually("the program is gone", SOON, || {
            TcpStream::connect(address).is_err().then_some(())
        });
    }
    fs::remove_dir_all(made["folder"].as_str().expect("a folder")).expect("removed");
}

#[test]
fn a_program_that_dies_is_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    // The command finds the server by the folder in its command line.
    let script = "for p in /proc/[0-9]*; do \
                  tr '\\0' ' ' <$p/cmdline | grep -q \"^[^ ]*/sso-server run --settings $1/\" && \
                  kill -9 ${p#/proc/}; done 2>/dev/null; exec sleep 60";
    let path = folder.path().canonicalize().expect("a path");
    let output = dev()
        .arg("--dir")
        .arg(&path)
        .args(["--", "sh", "-c", script, "sh"])
        .arg(&path)
        .output()
        .expect("sso dev runs");
    assert_eq!(output.status.code(), Some(69), "{}", text(&output));
    assert!(text(&output).contains("sso-server-1 ended with signal: 9"), "{}", text(&output));
}

#[test]
fn missing_programs_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let alone = folder.path().join("sso");
    fs::copy(programs().client, &alone).expect("copied");
    let output = Command::new(&alone).arg("dev").output().expect("sso runs");
    assert_eq!(output.status.code(), Some(69), "{}", text(&output));
    assert!(text(&output).contains("sso-master and sso-server not found in "), "{}", text(&output));
}

#[test]
fn every_file_of_a_system_is_private() {
    let mut system = System::start(Database::Sqlite);
    system.stop_server(1);
    system.start_server(1);
    let mut seen = 0;
    for (path, _) in system.files() {
        let mode = fs::metadata(&path).expect("a file").permissions().mode() & 0o777;
        let public =
            path.extension().is_some_and(|extension| extension == "crt" || extension == "crl");
        assert!(public || mode & 0o077 == 0, "{}: {mode:o}", path.display());
        seen += 1;
    }
    assert!(seen > 20, "only {seen} files");
    let mode = fs::metadata(system.folder()).expect("a folder").permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);
}

#[test]
fn the_material_of_sso_dev_is_refused_elsewhere() {
    let system = System::start(Database::Sqlite);
    let installation = system.installation();
    let refused = |path: &Path, mut command: Command| {
        let settings = fs::read_to_string(path).expect("settings");
        let strict = settings.replace("allow_development = true\n", "");
        assert_ne!(strict, settings);
        fs::write(path, strict).expect("settings written");
        let output = command.output().expect("it runs");
        fs::write(path, settings).expect("settings written");
        assert_eq!(output.status.code(), Some(64), "{}", text(&output));
        assert!(text(&output).contains("development"), "{}", text(&output));
    };
    let run = |program: &Path, settings: &Path| {
        let mut command = Command::new(program);
        command.arg("run").arg("--settings").arg(settings);
        command
    };
    let (master, server) = (installation.master_settings(), installation.server_settings(1));
    refused(&master, run(&installation.programs().master, &master));
    refused(&server, run(&installation.programs().server, &server));
    let mut status = system.command("admin");
    status.arg("status");
    refused(&installation.profiles(), status);
}

#[test]
fn the_tour_of_the_readme_goes_to_its_end() {
    let tour = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tour.sh");
    let output = dev().arg("--").arg(tour).output().expect("sso dev runs");
    assert!(output.status.success(), "{}", text(&output));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("That was the tour."), "{stdout}");
    assert!(stdout.contains("REVISION_STALE"), "{stdout}");
}

#[test]
fn the_story_of_single_sign_on_goes_to_its_end() {
    let story = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/single-sign-on.sh");
    let output = dev().arg("--").arg(story).output().expect("sso dev runs");
    assert!(output.status.success(), "{}", text(&output));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("That was single sign-on."), "{stdout}");
    for identity in [r"issued to DEV\user", r"sender is DEV\app-admin", "TICKET_SENDER_MISMATCH"] {
        assert!(stdout.contains(identity), "{identity}: {stdout}");
    }
}

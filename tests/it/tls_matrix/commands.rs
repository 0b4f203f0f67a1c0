//! What a person sees at the command line: the reason, from `sso cert check` and from any other
//! command.

use std::{fmt::Write as _, fs, path::PathBuf, process::Output};

use super::{
    known_to_clients,
    oracle::{Lists, Outcome, Policy, Variant, Version, expected},
    subject::Subject,
    zoo::Kind,
};

/// What commands end with when what they were given does not do.
const OWN_FILES: i32 = 64;

/// A profiles file with one profile for every kind of certificate. Returns its path.
fn write_profiles(subject: &Subject) -> PathBuf {
    let target = subject.target();
    let mut text = String::from("version = 1\n");
    for kind in Kind::ALL {
        let ca = target.ca.display();
        let _ = write!(
            text,
            "[profile.{kind:?}]\naddr = \"https://{}\"\nca = \"{ca}\"\nallow_development = true\n",
            target.address
        );
        if let Some(files) = subject.zoo.files(kind) {
            let (certificate, key) = (files.certificate.display(), files.key.display());
            let _ = write!(text, "cert = \"{certificate}\"\nkey = \"{key}\"\n");
        }
    }
    let path = subject.zoo.folder().join("profiles.toml");
    fs::write(&path, text).expect("written");
    path
}

fn run(subject: &Subject, profiles: &PathBuf, kind: Kind, arguments: &[&str]) -> Output {
    let mut command = subject.system.command(&format!("{kind:?}"));
    command.env("SSO_CONFIG", profiles).args(arguments).output().expect("sso runs")
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}\n{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// What is wrong with what a command says.
fn mismatch(kind: Kind, wanted: Outcome, output: &Output) -> Option<String> {
    let said = said(output);
    let right = match (kind, wanted) {
        // Ours looks at its own files first.
        (Kind::Expired, _) => !output.status.success() && said.contains("expired on 2021-01-01"),
        (Kind::NotYetValid, _) => !output.status.success() && said.contains("from 2190-01-01"),
        (_, Outcome::Served | Outcome::LetThrough(_)) => output.status.success(),
        (Kind::Nothing, Outcome::Refused(_)) if output.status.code() == Some(OWN_FILES) => {
            said.contains("no client certificate")
        }
        (_, Outcome::Refused(why)) => {
            !output.status.success() && said.contains(known_to_clients(why))
        }
    };
    (!right).then(|| format!("{}: {said}", output.status))
}

#[test]
fn commands_say_why_they_are_refused() {
    let mut subject = Subject::prepare();
    let mut wrong = Vec::new();
    for (policy, lists) in [
        (Policy::HardFail, Lists::Good),
        (Policy::HardFail, Lists::Missing),
        (Policy::SoftFail, Lists::Missing),
    ] {
        subject.write_lists(lists);
        subject.start_variant(Version::Tls13, policy);
        let profiles = write_profiles(&subject);
        let address = subject.target().address.to_string();
        let variant = Variant::of(Version::Tls13, policy, lists);
        for kind in Kind::ALL {
            let wanted = expected(variant, Version::Tls13, kind);
            for arguments in [&["cert", "check", &address][..], &["status"]] {
                let output = run(&subject, &profiles, kind, arguments);
                if let Some(what) = mismatch(kind, wanted, &output) {
                    wrong.push(format!("{variant:?} {kind:?} {arguments:?}: {wanted:?}\n{what}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of it is wrong:\n{}", wrong.len(), wrong.join("\n"));
}

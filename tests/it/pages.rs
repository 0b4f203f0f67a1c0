//! Pages of the documentation that are made from the code. `SSO_WRITE_DOCS=1` writes them anew.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use sso_proto::Reason;

#[expect(clippy::disallowed_methods, reason = "an order to this test, not a setting of a program")]
pub(crate) fn is_up_to_date(page: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    if std::env::var_os("SSO_WRITE_DOCS").is_some() {
        fs::write(&path, text).expect("the page written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == text,
        "docs/{page} is out of date: SSO_WRITE_DOCS=1 cargo test -p sso-tests --all-features pages"
    );
}

/// The settings of the manual, as somebody would copy them.
#[test]
fn the_settings_of_the_manual_load() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let page = fs::read_to_string(page).expect("the page");
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name);
    for name in ["sso-master.toml", "groups.toml", "sso-server.toml"] {
        let (_, block) = page.split_once(&format!("`/etc/sso/{name}`")).expect("the file");
        let (_, block) = block.split_once("```toml\n").expect("a block");
        let (block, _) = block.split_once("```").expect("its end");
        fs::write(place(name), block).expect("written");
    }
    fs::create_dir(place("private")).expect("a folder");
    let password = place("private/database.password");
    sso_core::settings::write_private(&password, b"secret\n", false).expect("written");
    sso_master::settings::Settings::load(&place("sso-master.toml"))
        .expect("settings of the master");
    sso_server::settings::Settings::load(&place("sso-server.toml")).expect("settings of a server");
}

/// Every backticked word in the last column of the cases is a test, if it is not a reason or a path.
#[test]
fn the_tests_of_the_threat_model_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/threat-model.md")).expect("the page");
    let sources = crate::house::sources("");
    let cases =
        page.lines().filter(|line| line.starts_with("| ") && line.matches(" | ").count() == 3);
    let mut named = 0;
    for case in cases {
        let proof = case.rsplit(" | ").next().unwrap_or_default();
        for name in proof.split('`').skip(1).step_by(2).filter(|name| !name.contains('/')) {
            let is_there = sources.iter().any(|source| source.has_test(name));
            assert!(is_there, "no test {name}, named in: {case}");
            named += 1;
        }
    }
    assert!(named > 40, "only {named} tests are named");
}

/// The blocks of a page in this language.
fn blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let begin = format!("```{language}\n");
    let blocks = page.split(begin.as_str()).skip(1);
    blocks.map(|block| block.split_once("```").expect("its end").0).collect()
}

/// Keys of the settings with what a program writes, and whose unit has to let it.
const WRITTEN: [(&str, &[&str]); 6] = [
    ("sso-master", &["keystore"]),
    ("sso-master", &["administration", "socket"]),
    ("sso-master", &["backup", "folder"]),
    ("sso-server", &["listen_unix"]),
    ("sso-server", &["master", "cache", "file"]),
    ("sso-server", &["database", "url"]),
];

/// The folders that a unit under `ProtectSystem=strict` lets its program write.
fn granted(unit: &str) -> Vec<std::path::PathBuf> {
    assert!(unit.contains("\nProtectSystem=strict\n"), "{unit}");
    let mut folders = Vec::new();
    for line in unit.lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        let base = match key {
            "StateDirectory" => "/var/lib",
            "RuntimeDirectory" => "/run",
            "ReadWritePaths" => "/",
            _ => continue,
        };
        folders.extend(value.split(' ').map(|it| Path::new(base).join(it.trim_start_matches('-'))));
    }
    folders
}

/// Whoever follows the manual has programs that may write where it has them write.
#[test]
fn the_units_grant_what_the_manual_has_written() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |name: &str| fs::read_to_string(root.join(name)).expect("a file of the project");
    let mut found = BTreeSet::new();
    for page in ["docs/operations.md", "docs/identity.md"] {
        for block in blocks(&read(page), "toml") {
            let block: toml::Value = toml::from_str(block).expect("TOML");
            for (program, key) in WRITTEN {
                let value = key.iter().try_fold(&block, |value, part| value.get(part));
                let Some(path) = value.and_then(toml::Value::as_str) else { continue };
                let path = path.strip_prefix("sqlite:").unwrap_or(path);
                if !path.starts_with('/') {
                    continue;
                }
                let granted = granted(&read(&format!("packaging/systemd/{program}.service")));
                let may = granted.iter().any(|folder| Path::new(path).starts_with(folder));
                assert!(may, "{page}: {program} may not write {path}, only below {granted:?}");
                let _ = found.insert(key);
            }
        }
    }
    // All but the database, which is PostgreSQL there.
    assert_eq!(found.len(), WRITTEN.len() - 1, "{found:?}");
}

/// What opens the keystore by hand does so as the service: systemd alone has its credentials, and a
/// file that root made is of no use to it.
#[test]
fn the_manual_opens_the_keystore_as_the_service() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/operations.md")).expect("the page");
    let opens = ["init", "restore", "protector", "check"].map(|verb| format!("sso-master {verb} "));
    let blocks = blocks(&page, "sh");
    let lines = blocks.iter().flat_map(|block| block.lines());
    let mut seen = 0;
    for line in lines.filter(|line| opens.iter().any(|verb| line.contains(verb))) {
        assert!(line.contains("as_master sso-master "), "not as the service: {line}");
        seen += 1;
    }
    assert!(seen > 5, "only {seen} commands");
    let unit = fs::read_to_string(root.join("packaging/systemd/sso-master.service"));
    let unit = unit.expect("the unit");
    let credential = unit.lines().find(|line| line.starts_with("LoadCredential="));
    let credential = credential.expect("a credential");
    assert!(page.contains(&format!("--property={credential} ")), "{credential}");
}

/// Every metric that the code counts stands in the manual, and every one of the manual is counted.
#[test]
fn the_metrics_of_the_manual_are_counted() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let page = fs::read_to_string(page).expect("the page");
    let told: BTreeSet<_> = page
        .lines()
        .filter(|line| line.starts_with("| `sso_") || line.starts_with("Both: `sso_"))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|name| name.starts_with("sso_"))
        .map(str::to_owned)
        .collect();
    let mut counted = BTreeSet::new();
    for source in crate::house::sources("sso-") {
        for kind in ["gauge!(", "counter!(", "histogram!("] {
            for (_, rest) in source.text.match_indices(kind).map(|(at, _)| source.text.split_at(at))
            {
                let name = rest.split('"').nth(1).unwrap_or_default();
                let _ = counted.insert(name.to_owned());
            }
        }
    }
    assert_eq!(told, counted);
    assert!(counted.len() > 20);
}

/// Every row of the parity list is there once and says what it may say; its tests exist.
#[test]
fn the_manual_explains_every_reason_of_tls() {
    let page = include_str!("../../docs/certificates.md");
    let explained = |reason: &str| {
        let named = format!("`{reason}`");
        page.lines().any(|line| {
            line.starts_with('|') && line.split('|').nth(1).is_some_and(|it| it.contains(&named))
        })
    };
    let missing: Vec<_> = sso_core::tls::TlsReason::ALL
        .iter()
        .map(|reason| reason.as_str())
        .filter(|reason| !explained(reason))
        .collect();
    assert!(missing.is_empty(), "docs/certificates.md says nothing of {missing:?}");
}

#[test]
fn parity() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/parity.md")).expect("the page");
    let (list, _) = page.split_once("\n## ").expect("the list, then the choices");
    let sources = crate::house::sources("");
    let mut expected = 1..=148;
    let rows = list.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| #"));
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [number, feature, state, _, proof, note] = cells[..] else {
            panic!("six cells are needed: {row}");
        };
        assert_eq!(number.parse().ok(), expected.next(), "{row}");
        assert!(!feature.is_empty(), "{row}");
        let tests: Vec<_> = proof.split('`').skip(1).step_by(2).collect();
        match state {
            "done" => assert!(!tests.is_empty(), "done without a test: {row}"),
            "partly" | "replaced" | "not planned" => assert!(!note.is_empty(), "no note: {row}"),
            "planned" => assert!(tests.is_empty(), "proved already? {row}"),
            other => panic!("{other} is no state: {row}"),
        }
        for test in tests {
            assert!(sources.iter().any(|source| source.has_test(test)), "no test {test}: {row}");
        }
    }
    assert_eq!(expected.next(), None, "the list ends too early");
}

/// As the specification of gRPC writes it.
fn status_name(code: tonic::Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// The status of a refusal; a warning has none.
pub(crate) fn status_of(reason: Reason) -> String {
    let code = reason.code();
    if code == tonic::Code::Ok {
        "(warning)".to_owned()
    } else {
        format!("`{}`", status_name(code))
    }
}

#[test]
fn errors() {
    let mut text = String::from(
        "# Reasons\n\n\
         Every refusal carries a gRPC status and, as `google.rpc.ErrorInfo` of the domain `sso.v1`, one of these reasons. \
         They are stable:\nprograms may rely on them. `event` is the number that the reference product logs for the same \
         thing.\nWarnings come with an answer that is otherwise good.\n\n\
         | reason | status | event | what it says |\n|---|---|---|---|\n",
    );
    for reason in Reason::ALL {
        let event = reason.event().map(|event| event.to_string()).unwrap_or_default();
        let (status, summary) = (status_of(*reason), reason.summary());
        let _ = writeln!(text, "| `{}` | {status} | {event} | {summary} |", reason.as_str());
    }
    is_up_to_date("errors.md", &text);
}

/// The text in front of the table of `docs/compat.md`.
const COMPAT: &str = "\
# The tools of the reference product

`ssomanage`, `ssoconfig`, `ssoclient` and `ssops` are other front doors to what `sso` does, for scripts that exist. They are
the same program under other names:

```sh
sso compat install ~/.local/bin         # makes four links named after the tools
ssomanage -listapps all
sso compat ssomanage -listapps all      # the same without a link
```

* A switch starts with a hyphen or a slash, in any case. `-help` lists the switches, `-SWITCH -help` tells about one.
* The first line of standard output is the server in use, `Using SSO server on this computer` or `Using SSO server: URL`; the
  last one of what succeeded is `The operation completed successfully.` Errors and warnings go to standard error; an error has
  the number that the reference product gives for the same thing, the stable reason of [errors.md](errors.md) and the id of the
  request: `Error code: 0xC0002A05, MAPPING_NOT_FOUND, request …`.
* Exit codes are those of `sso`: 0 done, 1 refused, 2 wrong switch, argument or file, 64 settings, 69 unavailable, 77 denied.
* Who calls comes from a profile or the `SSO_…` variables, as for `sso`. Where the server is comes from there too; where they do
  not say it, from `ssomanage -server` (kept in `$XDG_CONFIG_HOME/sso/server`, else `~/.config/sso/server`), then from
  `ssomanage -serverall` (`/etc/sso/server`, or below the folder that `SSO_MACHINE_CONFIG` names).
* `-setcredentials` asks on a terminal without showing the answers. Without a terminal it reads lines from standard input: the
  external user first, if the mapping is missing, then one value for each field from field 1 on, up to the end of the input.
  Another number of lines is refused with exit code 2 and nothing is written; where the mapping exists, its own external user may
  stand in front all the same, so that a script may run twice. Secrets never stand in arguments.
* `-generatesecret` and `-backupsecret` ask for a password, the password again and a reminder; without a terminal they read these
  from the lines of standard input, the reminder last or left out. `-restoresecret` shows the reminder and asks for the password.
  They go to the master secret server that the profile or `SSO_MASTER` names, on its own machine unless its settings allow more.
* A file of mappings may have 64 MiB, others 4 MiB. Every element of a file has an outcome of its own: what is refused is
  reported with its line, the rest goes on, and the exit code is 1.

Every switch of the four manuals, from `sso compat list`:

| tool | switch | state | what it does |
|---|---|---|---|
";

#[test]
fn compat() {
    let program = sso_tests::system::programs().client;
    let output = std::process::Command::new(program)
        .args(["compat", "list", "--output", "json"])
        .output()
        .expect("sso runs");
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a document");
    let mut text = COMPAT.to_owned();
    for one in list["switches"].as_array().expect("a list") {
        let cell = |key: &str| one[key].as_str().expect("a text").replace('|', "\\|");
        let (tool, switch) = (cell("tool"), cell("switch"));
        let (state, summary) = (cell("state"), cell("summary"));
        let _ = writeln!(text, "| {tool} | `{switch}` | {state} | {summary} |");
    }
    is_up_to_date("compat.md", &text);
}

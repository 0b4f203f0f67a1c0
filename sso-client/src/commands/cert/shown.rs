//! How certificates are shown: a tree from the root down to the leaf.

use std::path::PathBuf;

use serde::Serialize;
use sso_client::certificates::{
    Bundle, Description, Position, PrivateKey, Signature, Tree, TreeEntry,
};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    failure::Failure,
    output::{Output, escape},
};

/// Columns of what stands in front of a value.
const LABEL: usize = 14;

/// Prints a tree: one JSON document, or the lines of [`lines`].
pub(crate) fn print(tree: &Tree, now: OffsetDateTime, output: &Output) -> Result<(), Failure> {
    output.document(tree, |output| {
        for line in lines(tree, now) {
            output.line(&line)?;
        }
        Ok(())
    })
}

#[derive(Serialize)]
struct Written<'w> {
    files: &'w [PathBuf],
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<&'w [String]>,
    #[serde(flatten)]
    tree: Tree,
}

/// Prints the certificates of the first file, and which files were written. The second one is the key of
/// the first.
pub(super) fn print_written(
    files: &[PathBuf],
    now: OffsetDateTime,
    output: &Output,
) -> Result<(), Failure> {
    print_written_with(files, None, now, output)
}

/// The same with `warnings` in the JSON document.
pub(super) fn print_written_with(
    files: &[PathBuf],
    warnings: Option<&[String]>,
    now: OffsetDateTime,
    output: &Output,
) -> Result<(), Failure> {
    let Some((certificate, others)) = files.split_first() else { return Ok(()) };
    let mut tree = Tree::build(&Bundle::read(certificate, None)?.certificates);
    if let Some(file) = others.first()
        // An encrypted key was written just now; there is no doubt whose it is.
        && let Ok(key) = PrivateKey::read(file, None)
    {
        tree.mark_key(&key, &file.display().to_string());
    }
    let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    output.note(&format!("wrote {}", names.join(", ")));
    let written = Written { files, warnings, tree };
    output.document(&written, |output| {
        lines(&written.tree, now).iter().try_for_each(|line| output.line(line))
    })
}

/// Texts with commas between them, or a dash.
pub(super) fn list(texts: &[String]) -> String {
    if texts.is_empty() { "-".to_owned() } else { texts.join(", ") }
}

/// The tree as lines of text, without control characters whatever the certificates hold.
pub(crate) fn lines(tree: &Tree, now: OffsetDateTime) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in &tree.certificates {
        // The glyph of an entry stands below the first letter of its issuer.
        let (head, indent) = match entry.depth {
            0 => (String::new(), String::new()),
            depth => (format!("{}└─ ", "   ".repeat(depth - 1)), "   ".repeat(depth)),
        };
        lines.push(escape_after(&head, &entry.certificate.subject));
        for (label, value) in facts(entry, now) {
            lines.push(escape_after(&format!("{indent}  {label:<LABEL$}"), &value));
        }
    }
    lines.extend(tree.unreadable.iter().map(|text| escape_after("not readable: ", text)));
    lines
}

fn escape_after(start: &str, text: &str) -> String {
    format!("{start}{}", escape(text))
}

/// Everything that is told about one certificate, below its subject.
fn facts(entry: &TreeEntry, now: OffsetDateTime) -> Vec<(&'static str, String)> {
    let certificate = &entry.certificate;
    let mut facts = vec![("kind", kind(entry))];
    if entry.signature == Signature::IssuerMissing {
        facts.push(("issued by", format!("{}, which is not here", certificate.issuer)));
    }
    if entry.signature == Signature::NotChecked {
        facts
            .push(("signature", "not checked: this product does not use its algorithm".to_owned()));
    }
    if !certificate.alternative_names.is_empty() {
        facts.push(("names", certificate.alternative_names.join(", ")));
    }
    facts.extend([
        ("valid from", time_text(certificate.not_before)),
        (
            "valid until",
            format!("{} ({})", time_text(certificate.not_after), validity(certificate, now)),
        ),
        ("purposes", purposes(certificate)),
        ("key", certificate.key.clone()),
        ("serial", certificate.serial.clone()),
        ("SHA-1", certificate.thumbprint_sha1.clone()),
        ("SHA-256", certificate.thumbprint_sha256.clone()),
    ]);
    if !certificate.revocation_lists.is_empty() {
        facts.push(("lists at", certificate.revocation_lists.join(", ")));
    }
    if let Some(place) = &entry.private_key {
        facts.push(("private key", format!("you have the private key: {place}")));
    }
    if certificate.development {
        facts.push(("development", "yes: refused outside of `sso dev`".to_owned()));
    }
    facts
}

fn kind(entry: &TreeEntry) -> String {
    let below = |word: &str| match entry.certificate.path_length {
        None => word.to_owned(),
        Some(0) => format!("{word}; issues leaves only"),
        Some(1) => format!("{word}; one level of authorities below it"),
        Some(levels) => format!("{word}; {levels} levels of authorities below it"),
    };
    match entry.position {
        Position::Root => below("root, signed by itself"),
        Position::Intermediate => below("intermediate authority"),
        Position::Leaf if entry.certificate.is_self_issued() => "leaf, signed by itself".to_owned(),
        Position::Leaf => "leaf".to_owned(),
    }
}

fn purposes(certificate: &Description) -> String {
    let mut purposes: Vec<String> = certificate
        .usages
        .iter()
        .map(|usage| match usage.as_str() {
            "server" => "TLS server".to_owned(),
            "client" => "TLS client".to_owned(),
            other => other.to_owned(),
        })
        .collect();
    if certificate.authority {
        let signs = certificate.key_usages.iter().map(String::as_str);
        purposes.extend(signs.filter_map(|usage| match usage {
            "certificates" => Some("issue certificates".to_owned()),
            "revocation lists" => Some("issue revocation lists".to_owned()),
            _ => None,
        }));
    }
    match purposes.is_empty() {
        true => "any: the certificate names none".to_owned(),
        false => purposes.join(", "),
    }
}

/// Where `now` is in the validity, in words.
pub(crate) fn validity(certificate: &Description, now: OffsetDateTime) -> String {
    if now < certificate.not_before {
        return format!("not yet: starts in {}", span(certificate.not_before - now));
    }
    match certificate.not_after - now {
        left if left.is_negative() => format!("EXPIRED {} ago", span(-left)),
        left => format!("ends in {}", span(left)),
    }
}

/// Days, or hours below two days, or minutes below two hours.
pub(crate) fn span(length: Duration) -> String {
    let unit = |number: i64, one: &str| match number {
        1 => format!("1 {one}"),
        number => format!("{number} {one}s"),
    };
    match length {
        length if length >= Duration::days(2) => unit(length.whole_days(), "day"),
        length if length >= Duration::hours(2) => unit(length.whole_hours(), "hour"),
        length => unit(length.whole_minutes(), "minute"),
    }
}

pub(crate) fn time_text(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}

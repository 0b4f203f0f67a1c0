//! Questions of `-setcredentials` and of backups: on a terminal without showing the answers, else from the lines of
//! standard input. Answers never stand in the arguments.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read as _, Write as _},
    os::fd::AsFd as _,
};

use sso_client::{SecretText, v1::Application};
use zeroize::Zeroizing;

use crate::{failure::Failure, output::escape, values};

/// Bytes of the longest line.
const LONGEST: usize = 64 * 1024;

/// More lines than any application has fields.
const MOST_LINES: usize = 300;

/// What field 0 is called where it has no label.
const EXTERNAL_USER: &str = "external user";

/// Where the answers come from.
pub(super) struct Prompt {
    /// Not through the buffer of the standard library, which would keep what it has read.
    input: File,
    terminal: bool,
}

impl Prompt {
    pub(super) fn open() -> Result<Self, Failure> {
        let stdin = io::stdin();
        let input = stdin
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| Failure::io("standard input", error))?;
        Ok(Self { input: File::from(input), terminal: stdin.is_terminal() })
    }

    /// The answers for an application; `known` is the external user where it is settled, so that it is
    /// not asked for. Without a terminal the lines must be as many as the answers: a line too many
    /// would be stored in the place of another. The external user may stand in front of its own
    /// credentials all the same, for scripts that always give it.
    pub(super) fn answers(
        &mut self,
        application: &Application,
        known: Option<&str>,
    ) -> Result<Answers, Failure> {
        if self.terminal {
            let external_user = match known {
                Some(_) => None,
                None => Some(self.ask_external_user(application)?),
            };
            let credentials = values::prompt_fields(&application.fields)?;
            return Ok(Answers { external_user, credentials });
        }
        let (mut lines, given) = self.lines()?;
        let labels = labels(application, known.is_none());
        if let Some(known) = known
            && given == labels.len() + 1
            // Expose: a name, if it is the one known.
            && lines.first().is_some_and(|line| same_name(line.expose(), known))
        {
            lines.remove(0);
        } else if given != labels.len() {
            return Err(wrong_count(given, known.is_some(), &labels));
        }
        let external_user = match known {
            Some(_) => None,
            None => {
                let label = label_of(application, 0, EXTERNAL_USER);
                Some(name_in(&lines.remove(0), &label)?)
            }
        };
        Ok(Answers { external_user, credentials: lines })
    }

    /// A new password and its reminder. Without a terminal: the password, the password again, and the
    /// reminder, which may be left out.
    pub(super) fn new_password(&mut self) -> Result<(SecretText, String), Failure> {
        if self.terminal {
            let password = values::ask("Password", true, "")?;
            return Ok((password, self.ask_line("Password reminder")?.unwrap_or_default()));
        }
        let (mut lines, given) = self.lines()?;
        if !(2..=3).contains(&given) {
            return Err(Failure::usage_hint(
                format!("{given} lines were given, and 2 or 3 are expected"),
                "one line each: the password, the password again, the reminder; nothing was written",
            ));
        }
        // Expose: a reminder, which everybody may read.
        let reminder = lines.drain(2..).next().map(|line| line.expose().to_owned());
        match lines.as_slice() {
            [first, again] if first == again => Ok((first.clone(), reminder.unwrap_or_default())),
            _ => Err(Failure::usage("the two entries differ; nothing was written")),
        }
    }

    /// The password of a backup that exists: without a terminal the only line.
    pub(super) fn password(&mut self) -> Result<SecretText, Failure> {
        if self.terminal {
            return values::ask("Password", false, "");
        }
        let (mut lines, given) = self.lines()?;
        match (lines.pop(), given) {
            (Some(password), 1) => Ok(password),
            (Some(_) | None, _) => Err(Failure::usage_hint(
                format!("{given} lines were given, and 1 is expected"),
                "the password of the backup; nothing was changed",
            )),
        }
    }

    /// The name of the external user, which is no secret.
    fn ask_external_user(&mut self, application: &Application) -> Result<String, Failure> {
        let label = label_of(application, 0, EXTERNAL_USER);
        match self.ask_line(&label)? {
            Some(line) => name_in(&SecretText::new(line), &label),
            None => Err(Failure::usage(format!("'{label}' is empty"))),
        }
    }

    /// A line that is shown as it is typed.
    fn ask_line(&mut self, label: &str) -> Result<Option<String>, Failure> {
        let ask = |mut stderr: io::StderrLock<'_>| {
            write!(stderr, "{}: ", escape(label)).and_then(|()| stderr.flush())
        };
        ask(io::stderr().lock()).map_err(|error| Failure::io("asking", error))?;
        // Expose: it was shown, so it is no secret.
        Ok(self.line()?.map(|line| line.expose().to_owned()))
    }

    /// The lines up to the end of the input, and how many there are; those beyond every application
    /// are only counted.
    fn lines(&mut self) -> Result<(Vec<SecretText>, usize), Failure> {
        let mut lines = Vec::new();
        let mut given = 0;
        while let Some(line) = self.line()? {
            given += 1;
            if given <= MOST_LINES {
                lines.push(line);
            }
        }
        Ok((lines, given))
    }

    /// One line, without what ends it; `None` at the end of the input.
    fn line(&mut self) -> Result<Option<SecretText>, Failure> {
        let mut line = Zeroizing::new(Vec::with_capacity(LONGEST));
        let mut byte = Zeroizing::new([0_u8; 1]);
        let mut any = false;
        while self
            .input
            .read(byte.as_mut_slice())
            .map_err(|error| Failure::io("standard input", error))?
            > 0
        {
            any = true;
            match *byte {
                [b'\n'] => break,
                _ if line.len() == LONGEST => {
                    return Err(Failure::usage(format!("a line has more than {LONGEST} bytes")));
                }
                [other] => line.push(other),
            }
        }
        if !any {
            return Ok(None);
        }
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        match str::from_utf8(line) {
            Ok(text) => Ok(Some(SecretText::new(text.to_owned()))),
            Err(_) => Err(Failure::usage("standard input is not UTF-8")),
        }
    }
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Answers {
    /// Only where it was not known before.
    pub(super) external_user: Option<String>,
    /// The value of each field but field 0.
    pub(super) credentials: Vec<SecretText>,
}

fn name_in(line: &SecretText, label: &str) -> Result<String, Failure> {
    // Expose: a name, not a secret.
    match line.expose().trim() {
        "" => Err(Failure::usage(format!("'{label}' is empty"))),
        user => Ok(user.to_owned()),
    }
}

fn same_name(line: &str, known: &str) -> bool {
    line.trim().to_lowercase() == known.to_lowercase()
}

/// What is asked for, in this order.
fn labels(application: &Application, with_external_user: bool) -> Vec<String> {
    let mut ordinals: Vec<_> = application
        .fields
        .iter()
        .map(|field| field.ordinal)
        .filter(|&ordinal| ordinal > 0)
        .collect();
    ordinals.sort_unstable();
    let user = with_external_user.then(|| label_of(application, 0, EXTERNAL_USER));
    let values = ordinals.into_iter().map(|ordinal| label_of(application, ordinal, "credential"));
    user.into_iter().chain(values).collect()
}

/// No line is repeated: one of them may be a secret.
fn wrong_count(given: usize, exists: bool, labels: &[String]) -> Failure {
    let given = match given {
        1 => "1 line was given".to_owned(),
        many => format!("{many} lines were given"),
    };
    let mapping = if exists { "the mapping exists" } else { "the mapping is missing" };
    let verb = if labels.len() == 1 { "is" } else { "are" };
    Failure::usage_hint(
        format!("{given}; {mapping}, so {} {verb} expected", labels.len()),
        format!("one line each, in this order: {}; nothing was written", labels.join(", ")),
    )
}

fn label_of(application: &Application, ordinal: u32, otherwise: &str) -> String {
    let field = application.fields.iter().find(|field| field.ordinal == ordinal);
    field.map_or_else(|| otherwise.to_owned(), |field| field.label.clone())
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;

    use sso_client::v1::Field;

    use super::*;

    fn prompt(input: &[u8]) -> Prompt {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(input).unwrap();
        file.rewind().unwrap();
        Prompt { input: file, terminal: false }
    }

    fn application() -> Application {
        let field = |ordinal, label: &str| Field {
            ordinal,
            label: label.to_owned(),
            masked: ordinal == 1,
            synchronized: false,
        };
        Application {
            fields: vec![field(0, "User"), field(2, "Group"), field(1, "Password")],
            ..Application::default()
        }
    }

    fn answers(input: &str, known: Option<&str>) -> Result<(Option<String>, Vec<String>), Failure> {
        let Answers { external_user, credentials } =
            prompt(input.as_bytes()).answers(&application(), known)?;
        // Expose: compared with what the test wrote.
        let values = credentials.iter().map(|value| value.expose().to_owned()).collect();
        Ok((external_user, values))
    }

    #[test]
    fn lines_in_the_order_of_the_fields() {
        let values = vec!["  s3cret ".to_owned(), String::new()];
        let (user, found) = answers("U1 \r\n  s3cret \r\n\n", None).unwrap();
        assert_eq!((user.as_deref(), &found), (Some("U1"), &values));
        for input in ["  s3cret \n\n", " u1\n  s3cret \n\n"] {
            let (user, found) = answers(input, Some("U1")).unwrap();
            assert_eq!((user, &found), (None, &values), "{input:?}");
        }
    }

    /// The external user of a script that runs twice must not become the password.
    #[test]
    fn another_number_of_lines_is_refused_and_none_is_repeated() {
        for (input, known, message) in [
            ("canary\n", None, "1 line was given; the mapping is missing, so 3 are expected"),
            ("", Some("U1"), "0 lines were given; the mapping exists, so 2 are expected"),
            ("canary\n", Some("U1"), "1 line was given; the mapping exists, so 2 are expected"),
            (
                "canary\nU1\npw\n",
                Some("U1"),
                "3 lines were given; the mapping exists, so 2 are expected",
            ),
            (
                "U1\na\nb\ncanary",
                Some("U1"),
                "4 lines were given; the mapping exists, so 2 are expected",
            ),
            (
                "U1\na\nb\ncanary",
                None,
                "4 lines were given; the mapping is missing, so 3 are expected",
            ),
        ] {
            let failure = answers(input, known).unwrap_err();
            assert_eq!((failure.exit_code(), failure.message().as_str()), (2, message));
            let hint = failure.hint().unwrap();
            assert!(hint.contains("Password, Group") && !hint.contains("canary"), "{hint}");
        }
        let many = "canary\n".repeat(MOST_LINES + 9);
        assert!(answers(&many, None).unwrap_err().message().starts_with("309 lines"));
    }

    #[test]
    fn passwords_come_twice_with_their_reminder() {
        let new = |input: &str| prompt(input.as_bytes()).new_password();
        let (password, reminder) = new("canary 1\ncanary 1\nthe usual\n").unwrap();
        // Expose: compared with what the test wrote.
        assert_eq!((password.expose(), reminder.as_str()), ("canary 1", "the usual"));
        assert_eq!(new("canary 1\ncanary 1\n").unwrap().1, "");
        for bad in ["", "canary 1\n", "canary 1\ncanary 2\nx\n", "canary 1\ncanary 1\nx\ny\n"] {
            let failure = new(bad).unwrap_err();
            assert_eq!(failure.exit_code(), 2, "{bad:?}");
            assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
        }
        let one = |input: &str| prompt(input.as_bytes()).password();
        assert_eq!(one("canary 3").unwrap().expose(), "canary 3");
        assert!(one("").is_err() && one("a\nb\n").is_err());
    }

    #[test]
    fn lines_that_are_no_answers_are_refused() {
        assert_eq!(answers(" \na\nb\n", None).unwrap_err().exit_code(), 2);
        assert!(prompt(b"\xFFcanary\n").answers(&application(), Some("U1")).is_err());
        assert!(prompt(&[b'x'; LONGEST + 1]).answers(&application(), None).is_err());
    }
}

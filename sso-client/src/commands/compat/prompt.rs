//! Questions of `-setcredentials`: on a terminal without showing the answers, else from the lines of
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

    /// The name of the external user, which is no secret.
    pub(super) fn external_user(&mut self, application: &Application) -> Result<String, Failure> {
        let label = label_of(application, 0, "external user");
        if self.terminal {
            let ask = |mut stderr: io::StderrLock<'_>| {
                write!(stderr, "{}: ", escape(&label)).and_then(|()| stderr.flush())
            };
            ask(io::stderr().lock()).map_err(|error| Failure::io("asking", error))?;
        }
        // Expose: a name, not a secret.
        match self.line(&label)?.expose().trim() {
            "" => Err(Failure::usage(format!("'{label}' is empty"))),
            user => Ok(user.to_owned()),
        }
    }

    /// The value of each field but field 0.
    pub(super) fn credentials(
        &mut self,
        application: &Application,
    ) -> Result<Vec<SecretText>, Failure> {
        if self.terminal {
            return values::prompt_fields(&application.fields);
        }
        let mut ordinals: Vec<_> = application
            .fields
            .iter()
            .map(|field| field.ordinal)
            .filter(|&ordinal| ordinal > 0)
            .collect();
        ordinals.sort_unstable();
        ordinals
            .into_iter()
            .map(|ordinal| self.line(&label_of(application, ordinal, "credential")))
            .collect()
    }

    /// One line, without what ends it.
    fn line(&mut self, label: &str) -> Result<SecretText, Failure> {
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
                    return Err(Failure::usage(format!("'{label}' has more than {LONGEST} bytes")));
                }
                [other] => line.push(other),
            }
        }
        if !any {
            return Err(Failure::usage(format!(
                "standard input has no line for '{label}'; give one line for each answer"
            )));
        }
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        match str::from_utf8(line) {
            Ok(text) => Ok(SecretText::new(text.to_owned())),
            Err(_) => Err(Failure::usage(format!("'{label}' is not UTF-8"))),
        }
    }
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

    #[test]
    fn lines_in_the_order_of_the_fields() {
        let mut prompt = prompt("U1 \r\n  s3cret \r\n\nnext".as_bytes());
        assert_eq!(prompt.external_user(&application()).unwrap(), "U1");
        let values = prompt.credentials(&application()).unwrap();
        // Expose: compared with what the test wrote.
        let values: Vec<_> = values.iter().map(|value| value.expose().to_owned()).collect();
        assert_eq!(values, ["  s3cret ", ""]);
        // Expose: compared with what the test wrote.
        assert_eq!(prompt.line("next").unwrap().expose(), "next", "no line is read too far");
    }

    #[test]
    fn what_is_missing_is_named_and_nothing_given_is_repeated() {
        let failure = prompt(b"canary\n").credentials(&application()).unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        assert!(failure.message().contains("'Group'"), "{}", failure.message());
        assert!(!failure.message().contains("canary"));
        assert_eq!(prompt(b" \n").external_user(&application()).unwrap_err().exit_code(), 2);
        assert!(prompt(b"\xFFcanary\n").credentials(&application()).is_err());
        assert!(prompt(&[b'x'; LONGEST + 1]).line("long").is_err());
    }
}

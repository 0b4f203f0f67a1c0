//! Asking for passphrases: on a terminal, without echo; never in the arguments of a command, which
//! every user of the machine can read.

use std::io::IsTerminal as _;
#[cfg(test)]
use std::{cell::RefCell, collections::VecDeque};

use sso_core::{
    passphrase::canonical,
    secret::{SecretBytes, SecretText},
};

/// The least characters of a passphrase or password.
pub const SHORTEST: usize = 7;
/// The most characters of a passphrase or password.
pub const LONGEST: usize = 256;

/// Why no usable passphrase came in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// Nobody can be asked.
    #[error("{what} is needed and there is no terminal to ask on; name a file with it: {instead}")]
    NoTerminal {
        /// What is needed.
        what: &'static str,
        /// The setting or argument that names a file.
        instead: &'static str,
    },
    /// The terminal cannot be read.
    #[error("the terminal cannot be read: {0}")]
    Terminal(std::io::Error),
    /// The two entries differ.
    #[error("the two entries of {0} are not the same")]
    Differ(&'static str),
    /// It is too short or too long.
    #[error("{what} must have {SHORTEST} to {LONGEST} characters, not {found}")]
    Length {
        /// What was entered.
        what: &'static str,
        /// How many characters it has.
        found: usize,
    },
    /// It is not text.
    #[error("{0} is not text in UTF-8")]
    NotText(&'static str),
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// In the middle of a sentence, such as "the backup password".
    pub what: &'static str,
    /// The setting or argument that names a file instead.
    pub instead: &'static str,
}

/// Who answers.
#[derive(Debug)]
pub enum Asker {
    /// Whoever sits at the terminal.
    Terminal,
    /// A test.
    #[cfg(test)]
    Scripted(RefCell<VecDeque<&'static str>>),
}

impl Asker {
    /// A passphrase as it was typed.
    ///
    /// # Errors
    /// When there is no terminal.
    pub fn ask(&self, question: Question) -> Result<SecretText, PromptError> {
        self.line(question, &format!("Enter {}: ", question.what))
    }

    /// A new passphrase, typed twice and of the right length.
    ///
    /// # Errors
    /// When there is no terminal, the entries differ, or the length is wrong.
    pub fn ask_new(&self, question: Question) -> Result<SecretText, PromptError> {
        let what = question.what;
        let entered = self.line(question, &format!("Choose {what}: "))?;
        check_length(what, &entered)?;
        let again = self.line(question, &format!("Enter {what} again: "))?;
        if canonical(&entered) != canonical(&again) {
            return Err(PromptError::Differ(what));
        }
        Ok(entered)
    }

    /// Whether a wrong answer may be corrected.
    #[must_use]
    pub fn is_interactive(&self) -> bool {
        match self {
            Self::Terminal => std::io::stdin().is_terminal(),
            #[cfg(test)]
            Self::Scripted(_) => true,
        }
    }

    fn line(&self, question: Question, prompt: &str) -> Result<SecretText, PromptError> {
        let no_terminal =
            || PromptError::NoTerminal { what: question.what, instead: question.instead };
        match self {
            Self::Terminal if std::io::stdin().is_terminal() => {
                let entered = rpassword::prompt_password(prompt).map_err(PromptError::Terminal)?;
                Ok(SecretText::new(entered))
            }
            Self::Terminal => Err(no_terminal()),
            #[cfg(test)]
            Self::Scripted(answers) => {
                let answer = answers.borrow_mut().pop_front().ok_or_else(no_terminal)?;
                Ok(SecretText::new(answer.to_owned()))
            }
        }
    }
}

#[cfg(test)]
impl Asker {
    pub(crate) fn scripted<const N: usize>(answers: [&'static str; N]) -> Self {
        Self::Scripted(RefCell::new(answers.into()))
    }
}

/// The text of a file with a passphrase.
///
/// # Errors
/// When it is not UTF-8.
pub fn as_text(what: &'static str, bytes: &SecretBytes) -> Result<SecretText, PromptError> {
    SecretText::from_utf8(bytes).map_err(|_| PromptError::NotText(what))
}

/// Refuses new passphrases that are too short or too long.
///
/// # Errors
/// Says how many characters there are.
pub fn check_length(what: &'static str, text: &SecretText) -> Result<(), PromptError> {
    // Expose: to count its characters.
    let found = text.expose().chars().count();
    if (SHORTEST..=LONGEST).contains(&found) {
        Ok(())
    } else {
        Err(PromptError::Length { what, found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: Question = Question { what: "the password", instead: "--password-file" };

    #[test]
    fn a_new_passphrase_is_typed_twice() {
        let asker = Asker::scripted(["long enough", "long enough"]);
        assert_eq!(asker.ask_new(QUESTION).unwrap().expose(), "long enough");
        let error = Asker::scripted(["long enough", "longenough"]).ask_new(QUESTION).unwrap_err();
        assert!(matches!(error, PromptError::Differ(_)), "{error}");
        let error = Asker::scripted(["short"]).ask_new(QUESTION).unwrap_err();
        assert!(error.to_string().contains("7 to 256 characters, not 5"), "{error}");
    }

    #[test]
    fn lengths_are_counted_in_characters() {
        let check = |text: String| check_length("it", &SecretText::new(text));
        assert!(check("ä".repeat(7)).is_ok());
        assert!(check("ä".repeat(6)).is_err());
        assert!(check("ä".repeat(256)).is_ok());
        assert!(check("ä".repeat(257)).is_err());
    }

    #[test]
    fn without_anyone_to_ask_the_way_out_is_named() {
        let error = Asker::scripted([]).ask(QUESTION).unwrap_err().to_string();
        assert!(error.contains("--password-file"), "{error}");
    }
}

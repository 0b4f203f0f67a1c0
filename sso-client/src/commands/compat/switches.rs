//! The command line of the tools: one switch with a hyphen or a slash, any case, and its arguments.

use std::{ffi::OsString, future::Future};

use super::frame::Call;
use crate::failure::Failure;

/// What becomes of a switch here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It does what the manual of the reference product says.
    Works,
    /// It works on this machine alone, without a server.
    WorksHere,
    /// What it did is done in another way; it says how.
    Explained,
    /// It belongs to a part that this version does not have; it says so.
    Absent,
}

impl State {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Works | Self::WorksHere => "works",
            Self::Explained => "explained",
            Self::Absent => "not in this version",
        }
    }

    pub(super) fn needs_server(self) -> bool {
        self == Self::Works
    }
}

/// A switch as the manual has it.
#[derive(Debug)]
pub(super) struct Switch {
    /// Without its hyphen.
    pub(super) name: &'static str,
    pub(super) arguments: &'static str,
    /// Fewest and most arguments.
    pub(super) counts: (usize, usize),
    pub(super) state: State,
    pub(super) summary: &'static str,
}

/// The switches of one tool.
pub(super) trait SwitchSet: Copy + 'static {
    const ALL: &'static [(Self, Switch)];

    /// Does what the switch is for.
    fn run(self, call: &Call<'_>) -> impl Future<Output = Result<(), Failure>>;
}

macro_rules! switches {
    (
        $(#[$doc:meta])* $set:ident by $run:path;
        $($variant:ident = $name:literal $arguments:literal $least:literal..=$most:literal $state:ident $summary:literal;)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum $set { $(#[doc = $summary] $variant,)* }

        impl $crate::commands::compat::switches::SwitchSet for $set {
            const ALL: &'static [(Self, $crate::commands::compat::switches::Switch)] = &[$((
                Self::$variant,
                $crate::commands::compat::switches::Switch {
                    name: $name,
                    arguments: $arguments,
                    counts: ($least, $most),
                    state: $crate::commands::compat::switches::State::$state,
                    summary: $summary,
                },
            ),)*];

            async fn run(
                self,
                call: &$crate::commands::compat::frame::Call<'_>,
            ) -> Result<(), $crate::failure::Failure> {
                $run(self, call).await
            }
        }
    };
}
pub(super) use switches;

/// What a command line asks for.
#[derive(Debug)]
pub(super) enum Parsed<S> {
    /// Only this text.
    Help(String),
    /// The switch, with as many arguments as it may have.
    Run(S, &'static Switch, Vec<String>),
}

/// Why a command line makes no sense, and what would.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) message: String,
    pub(super) usage: String,
}

/// Parses the arguments behind the name of the program.
pub(super) fn parse<S: SwitchSet>(
    program: &str,
    arguments: &[OsString],
) -> Result<Parsed<S>, Problem> {
    let problem = |message: String, usage: String| Problem { message, usage };
    let mut texts = Vec::with_capacity(arguments.len());
    for argument in arguments {
        match argument.to_str() {
            Some(text) => texts.push(text.to_owned()),
            None => {
                return Err(problem("an argument is not UTF-8".to_owned(), help::<S>(program)));
            }
        }
    }
    let Some((first, rest)) = texts.split_first() else {
        return Err(problem("no switch is given".to_owned(), help::<S>(program)));
    };
    let name = first.strip_prefix(['-', '/']).unwrap_or_default();
    if is_help(name) {
        return Ok(Parsed::Help(help::<S>(program)));
    }
    let same = |switch: &Switch| switch.name.eq_ignore_ascii_case(name);
    let Some((verb, switch)) = S::ALL.iter().find(|(_, switch)| same(switch)) else {
        let message = format!("there is no switch '{first}'; -help lists them");
        return Err(problem(message, String::new()));
    };
    let usage = || usage_of(program, switch);
    if let [only] = rest
        && only.strip_prefix(['-', '/']).is_some_and(is_help)
    {
        return Ok(Parsed::Help(format!("{}\n  {}", usage(), switch.summary)));
    }
    let (least, most) = switch.counts;
    if rest.len() < least {
        return Err(problem(format!("-{} lacks an argument", switch.name), usage()));
    }
    if rest.len() > most {
        return Err(problem(format!("-{} has an argument too many", switch.name), usage()));
    }
    if rest.iter().any(|argument| argument.trim().is_empty()) {
        return Err(problem(format!("an argument of -{} is empty", switch.name), usage()));
    }
    Ok(Parsed::Run(*verb, switch, rest.to_vec()))
}

fn is_help(name: &str) -> bool {
    ["help", "-help", "h", "?"].iter().any(|help| help.eq_ignore_ascii_case(name))
}

/// How a switch is written.
pub(super) fn usage_of(program: &str, switch: &Switch) -> String {
    format!("Usage: {program} {}", form(switch))
}

pub(super) fn form(switch: &Switch) -> String {
    format!("-{} {}", switch.name, switch.arguments).trim_end().to_owned()
}

fn help<S: SwitchSet>(program: &str) -> String {
    let widest = S::ALL.iter().map(|(_, switch)| form(switch).len()).max().unwrap_or_default();
    let mut text = format!("Usage: {program} -SWITCH [ARGUMENTS]\n");
    for (_, switch) in S::ALL {
        text.push_str(&format!("\n  {:widest$}  {}", form(switch), switch.summary));
    }
    text.push_str(&format!("\n\n{program} -SWITCH -help tells about one of them."));
    text
}

/// `yes`, `no`, `on` or `off` in any case.
pub(super) fn yes_or_no(text: &str) -> Result<bool, Failure> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "on" => Ok(true),
        "no" | "off" => Ok(false),
        _ => Err(Failure::usage(format!("'{text}' must be yes, no, on or off"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{client::Client, config::Config, manage::Manage, ps::Ps};
    use super::*;

    fn parse_line<S: SwitchSet>(line: &[&str]) -> Result<Parsed<S>, Problem> {
        parse("tool", &line.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn run_of(line: &[&str]) -> (Manage, Vec<String>) {
        match parse_line(line) {
            Ok(Parsed::Run(verb, _, arguments)) => (verb, arguments),
            other => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn hyphen_or_slash_and_any_case() {
        for line in [["-listapps", "all"], ["/LISTAPPS", "all"], ["-ListApps", "all"]] {
            assert_eq!(run_of(&line), (Manage::ListApps, vec!["all".to_owned()]));
        }
        let (verb, arguments) = run_of(&["-createapps", "/tmp/apps.xml"]);
        assert_eq!((verb, arguments), (Manage::CreateApps, vec!["/tmp/apps.xml".to_owned()]));
        assert_eq!(run_of(&["-deletemapping", r"D\u", "-odd-name"]).0, Manage::DeleteMapping);
    }

    #[test]
    fn wrong_arguments_show_the_usage_of_their_switch() {
        for (line, message, usage) in [
            (&[][..], "no switch is given", "-SWITCH"),
            (&["listapps"], "there is no switch 'listapps'; -help lists them", ""),
            (&["-nonsense"], "there is no switch '-nonsense'; -help lists them", ""),
            (&["-"], "there is no switch '-'; -help lists them", ""),
            (&["-tickets"], "-tickets lacks an argument", "-tickets ALLOWED VALIDATE"),
            (&["-tickets", "yes"], "-tickets lacks an argument", "-tickets ALLOWED VALIDATE"),
            (
                &["-tickets", "yes", "no", "on"],
                "-tickets has an argument too many",
                "-tickets ALLOWED VALIDATE",
            ),
            (&["-deleteapp", " "], "an argument of -deleteapp is empty", "-deleteapp APP"),
            (&["-displaydb", "x"], "-displaydb has an argument too many", "-displaydb"),
        ] {
            let problem = parse_line::<Manage>(line).unwrap_err();
            assert_eq!(problem.message, message, "{line:?}");
            assert!(problem.usage.contains(usage), "{line:?}: {}", problem.usage);
        }
    }

    #[test]
    fn arguments_that_are_not_text_are_refused() {
        use std::os::unix::ffi::OsStringExt as _;
        let arguments = [OsString::from("-createapps"), OsString::from_vec(vec![0xFF])];
        assert!(parse::<Manage>("tool", &arguments).is_err());
    }

    #[test]
    fn help_is_the_list_or_one_switch() {
        for word in ["-help", "/HELP", "-?", "/?", "-h", "--help"] {
            match parse_line::<Manage>(&[word]) {
                Ok(Parsed::Help(text)) => assert!(text.contains("-listapps [all]"), "{text}"),
                other => panic!("{word}: {other:?}"),
            }
        }
        match parse_line::<Manage>(&["-tickets", "-help"]) {
            Ok(Parsed::Help(text)) => {
                assert!(text.starts_with("Usage: tool -tickets ALLOWED VALIDATE\n"), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn yes_and_no_in_any_case() {
        for (text, on) in
            [("yes", true), ("ON", true), ("Yes", true), ("no", false), ("oFF", false)]
        {
            assert_eq!(yes_or_no(text).ok(), Some(on), "{text}");
        }
        for bad in ["", "true", "1", "y", "ja"] {
            assert_eq!(yes_or_no(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    /// No switch hides another one, and what is shown of its arguments fits their number.
    #[test]
    fn the_tables_are_consistent() {
        fn check<S: SwitchSet>() {
            let mut names = std::collections::HashSet::new();
            for (_, switch) in S::ALL {
                assert!(names.insert(switch.name.to_lowercase()), "{}", switch.name);
                assert!(switch.name.chars().all(|letter| letter.is_ascii_lowercase()));
                let words: Vec<_> = switch.arguments.split_whitespace().collect();
                let optional = words.iter().filter(|word| word.starts_with('[')).count();
                let (least, most) = switch.counts;
                assert_eq!(words.len(), most, "{}", switch.name);
                assert_eq!(words.len() - optional, least, "{}", switch.name);
                assert!(!switch.summary.ends_with('.') && !switch.summary.contains('|'));
            }
        }
        check::<Manage>();
        check::<Config>();
        check::<Client>();
        check::<Ps>();
    }
}

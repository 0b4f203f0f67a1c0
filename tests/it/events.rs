//! The page of events: made from the tables of the code, with the reference product's catalogue beside
//! them, so that no event of it is missing without a word.

use std::fmt::Write as _;

use sso_proto::{Event, Reason, Severity};

/// Every event of ESSO.md 13.1 to 13.9 that a reimplementation should show, by section.
const CATALOGUE: &[(&str, &[u32])] = &[
    (
        "13.1 Service life cycle and environment",
        &[
            10501, 10611, 10502, 10504, 10505, 10503, 10511, 10537, 10550, 10584, 10590, 10591,
            10599, 10602, 10613, 11015, 10612, 10728, 11038, 11039, 11040, 11041,
        ],
    ),
    (
        "13.2 Database",
        &[
            10513, 10514, 10515, 10603, 10548, 10549, 10588, 10785, 10845, 10831, 10832, 10833,
            10837, 10838,
        ],
    ),
    (
        "13.3 Master secret",
        &[
            10520, 10521, 10565, 10522, 10523, 10524, 10525, 10526, 10527, 10531, 10528, 10562,
            10529, 10530, 10533, 10532, 10534, 10547, 10555, 10559, 10560, 10561, 10759, 10564,
            10575, 10589, 10766, 10771, 10778, 10779, 10783, 10843, 10784, 10814, 10815, 10836,
            10839, 10840,
        ],
    ),
    (
        "13.4 Accounts, roles, access",
        &[
            10516, 10517, 10518, 10519, 10552, 10553, 10554, 10600, 10653, 10654, 10655, 11024,
            11063, 10567, 10568, 10573, 10574, 10569, 10570, 10572, 10773, 10571, 10774, 10597,
            10834, 10576, 10577, 10772, 10775, 10776, 10777, 10780, 10781, 10786, 10842, 11008,
            11009, 11010, 11011, 11012, 11013, 11014, 11016, 11042, 11051, 11052, 11053, 11054,
        ],
    ),
    (
        "13.5 Applications and fields",
        &[
            10538, 10755, 10566, 11044, 10578, 10579, 10580, 10581, 10582, 10583, 10595, 10769,
            10601, 10782, 10787, 10740, 10752, 10756, 10758, 10754, 10768, 10760, 10761, 10767,
            10806, 10846, 10848, 10849, 10850, 10851, 10852,
        ],
    ),
    (
        "13.6 Mappings and credentials",
        &[
            10551, 10731, 10853, 11059, 10556, 10557, 10558, 10586, 10587, 10610, 10753, 10844,
            11045, 11046, 10757, 10835, 10764, 10770, 10765, 10841, 10847, 10854, 10855, 11061,
            11062, 10856, 11026, 11027, 11028,
        ],
    ),
    (
        "13.7 Tickets",
        &[
            10539, 10545, 10540, 10541, 10542, 10543, 10544, 10790, 10585, 10592, 10593, 10594,
            10596, 10606, 10607, 10608, 10609, 10614, 11025, 10615,
        ],
    ),
    ("13.8 Host-initiated single sign-on", &[10808, 10809, 10810, 10811, 10812]),
    ("13.9 Audit", &[10535, 10536]),
];

/// How an event of the catalogue is answered for that stands in neither table.
enum Instead {
    /// A reason of the tables says the same thing.
    Reason(Reason),
    /// An event of the tables says the same thing.
    Event(Event),
    /// The program ends with this in its error and exit code, before it can log.
    Exit(&'static str),
    /// Arrives with a later piece of work.
    Later(&'static str),
    /// There is no such thing here.
    None(&'static str),
}

const SYNCHRONISATION: &str = "password synchronisation";

fn instead(number: u32) -> Option<Instead> {
    use Instead::{Exit, Later, None as No, Reason as Refused};
    Some(match number {
        10511 => Exit("64: `database.url` is required in the settings"),
        10550 | 11038..=11041 => No("the service account has no role here; see 10599 for root"),
        10602 | 10613 | 11015 => Instead::Event(Event::MasterLost),
        10612 => No("callers hold no transaction of the database"),
        10845 => Refused(Reason::DatabaseUnavailable),
        10831 | 10833 => {
            No("there is nothing to choose: an empty database is set up, another one is joined")
        }
        10832 => Instead::Event(Event::SchemaIncompatible),
        10837 | 10838 => No("the database has the name that its administrator gave it"),
        10565 => Instead::Event(Event::MasterSecretLocked),
        10555 => Instead::Event(Event::MasterSecretRefused),
        10561 | 10759 => No("the file of a backup is private, whatever the file system"),
        10784 => Exit("1 of `sso` and `sso-master`: the file cannot be opened"),
        10839 => Refused(Reason::BackupReminderInvalid),
        10843 => Refused(Reason::MasterSecretMissing),
        10552..=10554 | 10600 => Refused(Reason::MethodNotListed),
        10653..=10655 | 11024 | 11063 => Later(SYNCHRONISATION),
        10567 | 10568 | 10573 | 10574 => Refused(Reason::InvalidAccount),
        10570 | 10572 => Refused(Reason::SystemNotDisabled),
        10571 | 10774 => No("the servers are no accounts: they are known by their certificates"),
        10597 | 10772 => Refused(Reason::CallerNotInAccounts),
        10780 | 10786 => Refused(Reason::InvalidAccount),
        10842 => No("refusals say what was missing; nobody is sent to the log of another machine"),
        11012 => Refused(Reason::NotApplicationAdministrator),
        11014 | 11016 => No(
            "groups are a file or come with the token; what cannot be read is a member of nothing",
        ),
        10538 => Refused(Reason::ApplicationDisabled),
        10595 | 10769 | 10850 => No("an application is created with its fields in one step"),
        10601 | 10787 => Refused(Reason::InvalidFlags),
        10740 => Refused(Reason::WindowsAccountInvalid),
        10768 => Refused(Reason::DatabaseUnavailable),
        10767 => Exit("69 of `sso`: the server cannot be reached"),
        10806 | 10851 => Later(SYNCHRONISATION),
        10551 | 10731 | 11059 => Refused(Reason::AccountNotInApplication),
        10753 | 10844 => Refused(Reason::MappingExists),
        10835 => Refused(Reason::ConfigurationNotFound),
        10854 | 10855 | 11061 | 11062 => Later("password filters, with password synchronisation"),
        10586 | 10587 => {
            No("the cache has one switch, `credential_cache_timeout`, and a size of its own")
        }
        10610 => {
            No("the cache cannot fail by itself: what it does not hold is read from the database")
        }
        11027 => Refused(Reason::MappingNotFound),
        10544 => Refused(Reason::TicketExpired),
        10811 | 10812 => {
            No("no token of an operating system is made: the result is a ticket and an assertion")
        }
        _ => return None,
    })
}

fn of_event(number: u32) -> Option<Event> {
    Event::ALL.iter().copied().find(|event| event.number() == number)
}

fn of_reasons(number: u32) -> Vec<Reason> {
    Reason::ALL.iter().copied().filter(|reason| reason.event() == Some(number)).collect()
}

/// What answers for an event of the catalogue, in words.
fn answer(number: u32) -> String {
    let mut parts = Vec::new();
    if let Some(event) = of_event(number) {
        parts.push(format!("logged: `{}`", event.as_str()));
    }
    for reason in of_reasons(number) {
        let kind = if reason.code() == tonic::Code::Ok { "warning" } else { "refusal" };
        parts.push(format!("{kind}: `{}`", reason.as_str()));
    }
    if parts.is_empty() {
        let instead = instead(number)
            .unwrap_or_else(|| panic!("event {number} is neither in a table nor answered for"));
        parts.push(match instead {
            Instead::Reason(reason) => format!("refusal: `{}`", reason.as_str()),
            Instead::Event(event) => {
                format!("logged: `{}` ({})", event.as_str(), event.number())
            }
            Instead::Exit(what) => format!("exit code {what}"),
            Instead::Later(what) => format!("later: {what}"),
            Instead::None(why) => format!("not applicable: {why}"),
        });
    }
    parts.join("; ")
}

#[test]
fn events() {
    let mut text = String::from(
        "# Events\n\n\
         What the programs log, under the numbers of the reference product, and from 11101 on what that one has no event for. A line of the log has its number in the field\n\
         `event`; with `telemetry.log_format = \"json\"` it is easily searched. The severity is the level of the line. Numbers and\n\
         names are stable.\n\n\
         ## Logged\n\n\
         | event | name | severity | when | what to do |\n|---|---|---|---|---|\n",
    );
    for &event in Event::ALL {
        let (number, name, severity) = (event.number(), event.as_str(), event.severity().as_str());
        let (condition, remedy) = (event.condition(), event.remedy());
        let _ = writeln!(text, "| {number} | `{name}` | {severity} | {condition} | {remedy} |");
    }
    text.push_str(
        "\n## Refusals and warnings\n\n\
         A refusal is logged where it is answered, with the number of its reason: denials as warnings, failures of the service as\n\
         errors, everything else as information. A warning comes with an answer that is otherwise good. [Reasons](errors.md) has them all, also those without a number.\n\n\
         | event | reason | status | what it says |\n|---|---|---|---|\n",
    );
    let mut reasons: Vec<_> =
        Reason::ALL.iter().filter_map(|reason| Some((reason.event()?, reason))).collect();
    reasons.sort_by_key(|(number, _)| *number);
    for (number, reason) in reasons {
        let (name, status) = (reason.as_str(), crate::pages::status_of(*reason));
        let _ = writeln!(text, "| {number} | `{name}` | {status} | {} |", reason.summary());
    }
    text.push_str(
        "\n## The catalogue of the reference product\n\n\
         Every event of it that matters, password synchronisation aside, and what answers for it here.\n",
    );
    for (section, numbers) in CATALOGUE {
        let _ = write!(text, "\n### {section}\n\n| event | here |\n|---|---|\n");
        for &number in *numbers {
            let _ = writeln!(text, "| {number} | {} |", answer(number));
        }
    }
    crate::pages::is_up_to_date("events.md", &text);
}

#[test]
fn nothing_is_answered_for_twice() {
    for number in 10500..=11071 {
        let in_a_table = of_event(number).is_some() || !of_reasons(number).is_empty();
        assert!(!(in_a_table && instead(number).is_some()), "{number} is in a table by now");
    }
    let mut numbers: Vec<_> = CATALOGUE.iter().flat_map(|(_, numbers)| *numbers).collect();
    let count = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), count, "an event stands in the catalogue twice");
}

/// Every event is logged somewhere, at its level; no log line has a number of its own making.
#[test]
fn every_event_is_logged_at_its_level() {
    let mut code = String::new();
    for part in ["sso-core/src/", "sso-master/src/", "sso-server/src/"] {
        for source in crate::house::sources(part) {
            for (_, line) in source.code() {
                code.push_str(line);
                code.push('\n');
            }
        }
    }
    for &event in Event::ALL {
        let mark = format!("event = Event::{event:?}.number()");
        let places: Vec<_> = code.match_indices(&mark).collect();
        assert!(!places.is_empty(), "{event:?} is logged nowhere");
        let levels: &[&str] = match event.severity() {
            Severity::Information => &["info!(", "debug!("],
            Severity::Warning => &["warn!("],
            Severity::Error => &["error!("],
        };
        for (at, _) in places {
            let (before, _) = code.split_at(at);
            let (_, call) = before.rsplit_once("tracing::").expect("a log line");
            let fits = levels.iter().any(|level| call.starts_with(level));
            assert!(fits, "{event:?} is not logged as {levels:?}");
        }
    }
    for loose in ["event = 1", "(event 1"] {
        assert!(!code.contains(loose), "a number that stands in no table: {loose}…");
    }
}

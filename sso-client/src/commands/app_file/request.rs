//! What a definition in a file asks of the service.

use sso_client::{
    ClientError, Refusal,
    v1::{Application, ApplicationType, Field},
    xml::{ApplicationDefinition, FieldDefinition, Flag, Kind},
};

use crate::failure::Failure;

/// Where a flag of a file stands in the message, and how the update mask calls it.
pub(super) struct Place {
    pub(super) flag: Flag,
    path: &'static str,
    set: fn(&mut Application, bool),
    pub(super) value: fn(&Application) -> Option<bool>,
}

macro_rules! places {
    ($($flag:ident = $field:ident;)*) => {
        /// Every flag that is one in the message too.
        pub(super) const PLACES: &[Place] = &[$(Place {
            flag: Flag::$flag,
            path: stringify!($field),
            set: |application, on| application.$field = Some(on),
            value: |application| application.$field,
        },)*];
    };
}

places! {
    WindowsInitiatedSso = windows_initiated;
    HostInitiatedSso = host_initiated;
    ValidatePassword = validate_password;
    AllowTickets = allow_tickets;
    ValidateTickets = validate_tickets;
    TimeoutTickets = timeout_tickets;
    DisableCredCache = disable_credential_cache;
    DirectPasswordSync = direct_password_sync;
    WindowsCreds = windows_credentials;
    RestrictedCreds = restricted_credentials;
    RestrictMappingCreate = restrict_mapping_create;
    OneTimeTickets = one_time_tickets;
    RequireTicketAudience = require_ticket_audience;
}

/// What is done with the applications of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Create,
    Update,
}

impl Verb {
    pub(crate) fn done(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Update => "updated",
        }
    }
}

/// A message that is ready to be sent.
#[derive(Debug)]
pub(super) enum Request {
    Create(Application),
    Update(Application, Vec<&'static str>),
}

/// The message, and what an administrator should know of the parts that are left out of it.
pub(super) fn prepare(
    verb: Verb,
    definition: ApplicationDefinition,
) -> Result<(Request, Vec<String>), Failure> {
    if matches!(definition.kind(), Kind::Adapter | Kind::GroupAdapter) {
        return Err(unsupported(&definition.name));
    }
    match verb {
        Verb::Create => creation(definition),
        Verb::Update => change(definition),
    }
}

fn creation(definition: ApplicationDefinition) -> Result<(Request, Vec<String>), Failure> {
    let mut notes = Vec::new();
    if definition.name.contains(char::is_whitespace) {
        notes.push("the name has a space; many tools do not expect one".to_owned());
    }
    if definition.ticket_timeout.is_some() {
        notes.push("<appTicketTimeout> takes effect on update only; it is ignored".to_owned());
    }
    let kind = match definition.kind() {
        Kind::Individual => ApplicationType::Individual,
        Kind::Group => ApplicationType::Group,
        Kind::HostGroup => ApplicationType::HostGroup,
        Kind::ConfigStore => ApplicationType::ConfigStore,
        Kind::Adapter | Kind::GroupAdapter => return Err(unsupported(&definition.name)),
    };
    let accounts = Accounts::of(&definition)?;
    let mut application = Application {
        r#type: kind.into(),
        enabled: definition.flags.is_on(Flag::EnableApp),
        allow_local_accounts: definition.flags.is_on(Flag::AllowLocalAccounts),
        administrators_same: definition.flags.is_on(Flag::AdminAccountSame),
        fields: (0..).zip(definition.fields).map(field).collect(),
        name: definition.name,
        description: definition.description.unwrap_or_default(),
        contact: definition.contact.unwrap_or_default(),
        user_accounts: accounts.users.unwrap_or_default(),
        windows_account: accounts.windows.unwrap_or_default(),
        administrator_accounts: definition.administrator_accounts.unwrap_or_default(),
        ..Application::default()
    };
    for (flag, on) in definition.flags.iter() {
        if let Some(place) = place(flag) {
            (place.set)(&mut application, on);
        }
    }
    Ok((Request::Create(application), notes))
}

fn field((ordinal, field): (u32, FieldDefinition)) -> Field {
    let FieldDefinition { label, masked, synchronized } = field;
    Field { ordinal, label, masked, synchronized }
}

fn place(flag: Flag) -> Option<&'static Place> {
    PLACES.iter().find(|place| place.flag == flag)
}

/// Who uses the application, or for whom its external users stand.
struct Accounts {
    users: Option<Vec<String>>,
    windows: Option<String>,
}

impl Accounts {
    /// The one account of a host group may stand in either element (ESSO.md 4.6).
    fn of(definition: &ApplicationDefinition) -> Result<Self, Failure> {
        let windows = definition.windows_account.clone();
        let users = definition.user_accounts.clone();
        if definition.kind() != Kind::HostGroup || windows.is_some() {
            return Ok(Self { users, windows });
        }
        match users.as_deref() {
            None => Ok(Self { users: None, windows: None }),
            Some([only]) => Ok(Self { users: None, windows: Some(only.clone()) }),
            Some(accounts) => Err(refused(
                "WINDOWS_ACCOUNT_INVALID",
                10846,
                format!(
                    "application '{}' is a host group application with {} accounts; it takes exactly \
                     one, of a single user",
                    definition.name,
                    accounts.len()
                ),
            )),
        }
    }
}

fn unsupported(name: &str) -> Failure {
    let message = format!(
        "application '{name}' is a password synchronisation adapter; password synchronisation is not \
         part of this version"
    );
    let refusal = Refusal {
        reason: "APPLICATION_TYPE_UNSUPPORTED".to_owned(),
        event: None,
        message,
        request_id: String::new(),
    };
    Failure::Client(ClientError::Precondition(refusal))
}

fn refused(reason: &str, event: u32, message: String) -> Failure {
    let refusal = Refusal {
        reason: reason.to_owned(),
        event: Some(event),
        message,
        request_id: String::new(),
    };
    Failure::Client(ClientError::Invalid(refusal))
}

/// Changes what the file gives. A flag that is fixed goes along: the service ignores it and says so.
fn change(definition: ApplicationDefinition) -> Result<(Request, Vec<String>), Failure> {
    let accounts = Accounts::of(&definition)?;
    let mut application = Application { name: definition.name, ..Application::default() };
    let mut paths = Vec::new();
    let mut notes = Vec::new();
    for (flag, on) in definition.flags.iter() {
        match (flag, place(flag)) {
            (_, Some(place)) => {
                (place.set)(&mut application, on);
                paths.push(place.path);
            }
            (Flag::EnableApp, _) => {
                application.enabled = on;
                paths.push("enabled");
            }
            (Flag::AllowLocalAccounts, _) => {
                application.allow_local_accounts = on;
                paths.push("allow_local_accounts");
            }
            (fixed, _) => notes.push(format!(
                "flag '{}' cannot change after creation; it is ignored",
                fixed.as_str()
            )),
        }
    }
    if !definition.fields.is_empty() {
        notes.push(
            "fields cannot change; 'sso app add-field' adds one to a config store".to_owned(),
        );
    }
    let mut given = |path, given: bool| {
        if given {
            paths.push(path);
        }
    };
    given("description", definition.description.is_some());
    given("contact", definition.contact.is_some());
    given("user_accounts", accounts.users.is_some());
    given("windows_account", accounts.windows.is_some());
    given("administrator_accounts", definition.administrator_accounts.is_some());
    given("ticket_timeout", definition.ticket_timeout.is_some());
    if paths.is_empty() {
        let message =
            format!("the file says nothing of application '{}' that can change", application.name);
        return Err(Failure::usage(message));
    }
    application.description = definition.description.unwrap_or_default();
    application.contact = definition.contact.unwrap_or_default();
    application.user_accounts = accounts.users.unwrap_or_default();
    application.windows_account = accounts.windows.unwrap_or_default();
    application.administrator_accounts = definition.administrator_accounts.unwrap_or_default();
    application.ticket_timeout = definition.ticket_timeout.unwrap_or_default();
    Ok((Request::Update(application, paths), notes))
}

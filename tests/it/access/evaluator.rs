//! A small reference evaluator, written from ESSO.md 2.3 (the number of the row stands beside each
//! rule) and from what issue and architecture add, not from the code that is tested.

use sso_proto::v1::ApplicationType as Kind;

/// What somebody is, as far as the rules ask.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Who {
    /// The certificate that calls.
    pub(super) name: &'static str,
    /// SSO administrator.
    pub(super) sa: bool,
    /// Affiliate administrator.
    pub(super) aa: bool,
    /// Application administrator.
    pub(super) pa: bool,
    /// Application user.
    pub(super) pu: bool,
    /// Configuration reader: beyond ESSO, 14.3 row 32.
    pub(super) reader: bool,
    /// Auditor: beyond ESSO.
    pub(super) auditor: bool,
    /// Trusted host: beyond ESSO; threat-model.md, case 38.
    pub(super) trusted: bool,
}

/// Everybody of the matrix: one for each role, one without any, and those beyond ESSO.
pub(super) const EVERYBODY: [Who; 7] = {
    const NOBODY: Who = Who {
        name: "",
        sa: false,
        aa: false,
        pa: false,
        pu: false,
        reader: false,
        auditor: false,
        trusted: false,
    };
    [
        Who { name: "admin", sa: true, ..NOBODY },
        Who { name: "affiliate-admin", aa: true, ..NOBODY },
        Who { name: "app-admin", pa: true, ..NOBODY },
        Who { name: "user", pu: true, ..NOBODY },
        // `sso dev` trusts the group of DEV\host.
        Who { name: "host", trusted: true, ..NOBODY },
        Who { name: "reader", reader: true, ..NOBODY },
        Who { name: "auditor", auditor: true, ..NOBODY },
    ]
};

/// Whose mapping or ticket a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The caller's own.
    Own,
    /// Of somebody else.
    Other,
}

/// What is asked, in the words of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    SystemEnable,
    SystemRead,
    SystemUpdate,
    ServerSettings,
    Principals,
    SealedRows,
    ServerReload,
    ServerState,
    ApplicationCreate,
    ApplicationDelete,
    ApplicationAdministrators,
    ApplicationUsers,
    ApplicationUpdate,
    ApplicationTickets,
    ApplicationHosts,
    ApplicationRead,
    ApplicationList,
    ApplicationAddField,
    ApplicationPurge,
    MappingsOfAnyone,
    MappingsOf(Whose),
    MappingControl(Whose),
    MappingSetCredentials(Whose),
    MappingMembers,
    CredentialsReveal,
    CredentialsLogon,
    AssertionKeys,
    TicketIssue,
    TicketForward,
    TicketInspect(Whose),
    TicketRedeem,
    Explain,
    ConfigurationRead,
    ConfigurationReveal,
    ConfigurationWrite,
    ConfigurationWatch,
    AuditOfApplication,
    AuditOfAll,
}

/// Whether the role of the caller allows the operation on an application of this type.
pub(super) fn allows(who: Who, operation: Operation, kind: Kind) -> bool {
    use Operation as O;
    // 2.1: each role has all rights of those it contains; that is administration, not use.
    let sa = who.sa;
    let aa = sa || who.aa;
    let pa = aa || who.pa;
    // A config store has no mappings at all: whoever asks for the own one is told that, not of a role.
    let has_own = matches!(kind, Kind::Individual | Kind::ConfigStore);
    let own = |whose| whose == Whose::Own && who.pu && has_own;
    match operation {
        // Rows 4–9; who had which name is beyond ESSO.
        O::SystemEnable | O::SystemRead | O::SystemUpdate | O::ServerSettings | O::Principals => sa,
        // Whoever may back the master secret up.
        O::SealedRows => sa,
        // Beyond ESSO: what otherwise takes a signal on the machine of the server.
        O::ServerReload => sa,
        // 1.7: any authenticated caller.
        O::ServerState => true,
        // Rows 10 and 13.
        O::ApplicationCreate | O::ApplicationDelete | O::ApplicationAdministrators => aa,
        // 14.4 row 46: explicit approval of who external users become.
        O::ApplicationHosts => aa,
        // Rows 14, 15, 19, 22.
        O::ApplicationUsers
        | O::ApplicationUpdate
        | O::ApplicationAddField
        | O::ApplicationPurge => pa,
        // Rows 16 and 17, as Appendix A 4 proposes.
        O::ApplicationTickets => sa,
        // Rows 20 and 21: a user gets it without accounts.
        O::ApplicationRead => pa || who.pu,
        O::ApplicationList => true,
        // Row 23: an application administrator must name the application.
        O::MappingsOfAnyone => aa,
        // Rows 23 and 24.
        O::MappingsOf(Whose::Own) => pa || who.pu,
        O::MappingsOf(Whose::Other) => pa,
        // Rows 25–28: users only their own, only in individual applications.
        O::MappingControl(whose) => pa || own(whose),
        // Rows 29 and 30.
        O::MappingSetCredentials(whose) => pa || own(whose),
        O::MappingMembers => pa,
        // Row 31: no administrator role helps.
        O::CredentialsReveal => who.pu,
        // Rows 33 and 34.
        O::TicketRedeem | O::CredentialsLogon => pa,
        // Row 32.
        O::TicketIssue | O::AssertionKeys => true,
        // threat-model.md, case 38.
        O::TicketForward => who.trusted,
        // Beyond ESSO: a ticket tells of the one it was issued to.
        O::TicketInspect(whose) => whose == Whose::Own || aa,
        O::Explain => pa,
        // Row 35, and the configuration reader of 14.3 row 32.
        O::ConfigurationRead => pa || who.reader,
        // Row 36.
        O::ConfigurationReveal => who.pu,
        // Row 37.
        O::ConfigurationWrite => pa,
        O::ConfigurationWatch => pa || who.pu,
        O::AuditOfApplication => pa || who.auditor,
        O::AuditOfAll => sa || who.auditor,
    }
}

//! Files that update the global information: `<sso><globalInfo>…`.

use super::{
    applications::{accounts, number, once, require_root, text},
    reader::{XmlError, parse_document},
};

/// What the file changes; `None` = not in the file, stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GlobalInfoUpdate {
    /// Accounts of the SSO administrators.
    pub sso_administrators: Option<Vec<String>>,
    /// Accounts of the SSO affiliate administrators.
    pub affiliate_administrators: Option<Vec<String>>,
    /// The host of the master secret server.
    pub secret_server: Option<String>,
    /// Records to keep.
    pub audit_deleted_applications: Option<u32>,
    /// Records to keep.
    pub audit_deleted_mappings: Option<u32>,
    /// Records to keep.
    pub audit_credential_lookups: Option<u32>,
    /// Minutes.
    pub ticket_timeout: Option<u32>,
    /// Minutes, 0 = off.
    pub credential_cache_timeout: Option<u32>,
}

/// Parses a file of global information.
///
/// # Errors
/// The first fault, with line and column. Ranges are the server's to check.
pub fn parse_global_info(bytes: &[u8]) -> Result<GlobalInfoUpdate, XmlError> {
    let root = parse_document(bytes)?;
    require_root(&root, "sso")?;
    let mut found = None;
    for child in root.children() {
        // The sample of the reference product's manual leaves a letter out.
        if !child.is("globalInfo") && !child.is("globalnfo") {
            let message = format!("<{}> stands where only <globalInfo> may", child.name());
            return Err(child.error(message));
        }
        if found.replace(child).is_some() {
            return Err(child.error("<globalInfo> stands twice"));
        }
    }
    let Some(info) = found else {
        return Err(root.error("the file holds no <globalInfo>"));
    };
    info.require_no_attributes()?;
    info.require_no_text()?;
    let mut update = GlobalInfoUpdate::default();
    let any = |child: &_| number(child, u32::MAX);
    for child in info.children() {
        match child.name().to_ascii_lowercase().as_str() {
            "ssoadminaccount" => once(child, &mut update.sso_administrators, accounts)?,
            "ssoaffiliateadminaccount" => {
                once(child, &mut update.affiliate_administrators, accounts)?;
            }
            "secretserver" => once(child, &mut update.secret_server, text)?,
            "auditdeletedapps" => once(child, &mut update.audit_deleted_applications, any)?,
            "auditdeletedmappings" => once(child, &mut update.audit_deleted_mappings, any)?,
            "auditcredentiallookups" => once(child, &mut update.audit_credential_lookups, any)?,
            "tickettimeout" => once(child, &mut update.ticket_timeout, any)?,
            "credcachetimeout" => once(child, &mut update.credential_cache_timeout, any)?,
            _ => {
                let message = format!("unknown element <{}> in <globalInfo>", child.name());
                return Err(child.error(message));
            }
        }
    }
    match update == GlobalInfoUpdate::default() {
        true => Err(info.error("<globalInfo> is empty; there is nothing to change")),
        false => Ok(update),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::xml::write_global_info;

    #[test]
    fn the_sample_file() {
        let bytes = include_bytes!("../../tests/data/6-global-info.xml");
        let update = parse_global_info(bytes).unwrap();
        assert_eq!(update.ticket_timeout, Some(10));
        assert_eq!(update.credential_cache_timeout, Some(30));
        assert_eq!(update.audit_deleted_applications, Some(1000));
        assert_eq!(update.sso_administrators, None);
    }

    #[test]
    fn the_misspelt_sample_of_the_manual() {
        let bytes = include_bytes!("../../tests/data/manual/global-info-misspelt.xml");
        let update = parse_global_info(bytes).unwrap();
        assert_eq!(update.sso_administrators, Some(vec![r"NORTHWIND\SsoAdmins".into()]));
        assert_eq!(update.secret_server.as_deref(), Some("keyhost"));
        assert_eq!(update.credential_cache_timeout, Some(60));
    }

    prop_compose! {
        fn info()(
            administrators in option::of(vec(r"[A-Z]{1,5}\\[A-Za-z][A-Za-z &<]{0,10}[a-z]", 1..4)),
            affiliates in option::of(vec(r"[A-Z]{1,5}\\[A-Za-z]{1,10}", 1..4)),
            secret_server in option::of("[a-z][a-z0-9.-]{0,20}"),
            numbers in vec(option::of(any::<u32>()), 4),
            ticket_timeout in any::<u32>(),
        ) -> GlobalInfoUpdate {
            GlobalInfoUpdate {
                sso_administrators: administrators,
                affiliate_administrators: affiliates,
                secret_server,
                audit_deleted_applications: numbers[0],
                audit_deleted_mappings: numbers[1],
                audit_credential_lookups: numbers[2],
                credential_cache_timeout: numbers[3],
                ticket_timeout: Some(ticket_timeout),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(info in info()) {
            let text = write_global_info(&info).unwrap();
            prop_assert_eq!(parse_global_info(text.as_bytes()).unwrap(), info);
        }
    }

    #[test]
    fn accounts_and_secret_server() {
        let file = r"<SSO><GLOBALINFO><ssoAdminAccount>D\A; D\B ;</ssoAdminAccount>
            <secretServer>host</secretServer></GLOBALINFO></SSO>";
        let update = parse_global_info(file.as_bytes()).unwrap();
        assert_eq!(update.sso_administrators, Some(vec![r"D\A".into(), r"D\B".into()]));
        assert_eq!(update.secret_server.as_deref(), Some("host"));
    }

    #[test]
    fn faults_have_a_position() {
        for (file, expected) in [
            ("<sso/>", "column 1: the file holds no <globalInfo>"),
            ("<sso><globalInfo/></sso>", "column 6: <globalInfo> is empty"),
            ("<sso><globalInf></globalInfo></sso>", "</globalInfo> stands where </globalInf> must"),
            ("<sso><globalInfo></globalnfo></sso>", "</globalnfo> stands where </globalInfo> must"),
            ("<sso><globalInfo><x/></globalInfo></sso>", "column 18: unknown element <x>"),
            (
                "<sso><globalInfo><ticketTimeout>two</ticketTimeout></globalInfo></sso>",
                "<ticketTimeout> must be a whole number",
            ),
            (
                "<sso><globalInfo><ticketTimeout>2</ticketTimeout>\n\
                 <TicketTimeout>2</TicketTimeout></globalInfo></sso>",
                "line 2, column 1: <TicketTimeout> stands twice",
            ),
        ] {
            let error = parse_global_info(file.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{file}: {error}");
        }
    }
}

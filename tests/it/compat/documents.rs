//! The documents that the scripts load, with accounts of the throw-away system.

pub(crate) const APPLICATIONS: &str = r#"<?xml version="1.0"?>
<SSO>
  <application name="Payroll">
    <description>Payroll on the mainframe</description>
    <contact>payroll-ops@contoso.example</contact>
    <appuserAccount>DEV\Application Users;DEV\host</appuserAccount>
    <appAdminAccount>DEV\Application Administrators</appAdminAccount>
    <field ordinal="0" label="RACF user" masked="no"/>
    <field ordinal="1" label="RACF password" masked="yes"/>
    <flags groupApp="no" configStoreApp="no" allowTickets="yes" validateTickets="yes"
           timeoutTickets="yes" allowLocalAccounts="no" adminAccountSame="no" enableApp="yes"/>
  </application>
  <application name="Warehouse">
    <description/>
    <contact/>
    <userGroup>DEV\Application Users;DEV\Integration Hosts</userGroup>
    <appAdminGroup>DEV\Application Administrators</appAdminGroup>
    <field ordinal="0" label="ERP user" masked="no"/>
    <field ordinal="1" label="ERP password" masked="yes"/>
    <field ordinal="2" label="Terminal group" masked="no"/>
    <flags groupApp="YES" ticketTimeout="On" enableApp="Yes"/>
  </application>
  <application name="Batch">
    <description>Batch jobs</description>
    <windowsAccount>DEV\user</windowsAccount>
    <appAdminAccount>DEV\Application Administrators</appAdminAccount>
    <field ordinal="0" label="Job owner" masked="no"/>
    <field ordinal="1" label="Job password" masked="yes"/>
    <flags groupApp="yes" windowsInitiatedSSO="no" hostInitiatedSSO="yes" enableApp="yes"/>
  </application>
  <application name="Routing.Settings">
    <appUserAccount>DEV\Application Users</appUserAccount>
    <appAdminAccount>DEV\Application Administrators</appAdminAccount>
    <field ordinal="0" label="reserved" masked="no"/>
    <field ordinal="1" label="Url" masked="no"/>
    <flags configStoreApp="yes" enableApp="yes"/>
  </application>
</SSO>
"#;

pub(crate) const UPDATE: &str = r#"<sso>
  <application name="Payroll">
    <description>Payroll, in production</description>
    <appTicketTimeout>30</appTicketTimeout>
    <flags groupApp="no" windowsCreds="yes" disableCredCache="yes"/>
  </application>
</sso>
"#;

pub(crate) const ADAPTER: &str = r#"<sso>
  <application name="Racf Adapter">
    <appUserAccount>DEV\Application Users</appUserAccount>
    <computer>sso03.contoso.example</computer>
    <field ordinal="0" label="User" masked="no"/>
    <flags syncToAdapter="yes" enableApp="no"/>
  </application>
  <application name="Other">
    <appUserAccount>DEV\Application Users</appUserAccount>
    <appAdminAccount>DEV\Application Administrators</appAdminAccount>
    <field ordinal="0" label="User" masked="no"/>
    <flags enableApp="no"/>
  </application>
</sso>
"#;

pub(crate) const GLOBAL_INFO: &str = "<sso><globalnfo><ticketTimeout>10</ticketTimeout>\
    <credCacheTimeout>30</credCacheTimeout></globalInfo></sso>";

/// A document of mappings: account, application, external user.
pub(crate) fn mappings(rows: &[(&str, &str, &str)]) -> String {
    let mut text = String::from("<sso>\n");
    for (account, application, external_user) in rows {
        let (domain, user) = account.split_once('\\').expect("a domain");
        text.push_str(&format!(
            "  <mapping>\n    <windowsDomain>{domain}</windowsDomain>\n    \
             <windowsUserId>{user}</windowsUserId>\n    \
             <externalApplication>{application}</externalApplication>\n    \
             <externalUserId>{external_user}</externalUserId>\n  </mapping>\n"
        ));
    }
    text.push_str("</sso>\n");
    text
}

pub(crate) const MAPPINGS: [(&str, &str, &str); 4] = [
    (r"DEV\user", "Payroll", "USR01"),
    (r"DEV\Application Users", "Warehouse", "WHUSERS"),
    (r"DEV\user", "Batch", "JOB001"),
    (r"DEV\user", "Batch", "JOB002"),
];

//! Roles that were worked out once for a caller and an application.

use std::sync::Arc;

use super::{Access, Role};
use crate::model::{Application, Caller};

/// Every role, each with a bit of its own.
const ROLES: [Role; 9] = [
    Role::SsoAdministrator,
    Role::AffiliateAdministrator,
    Role::ApplicationAdministrator,
    Role::ApplicationMember,
    Role::ApplicationUser,
    Role::ConfigurationReader,
    Role::Auditor,
    Role::TrustedHost,
    Role::Anyone,
];

const fn bit(role: Role) -> u16 {
    1 << role as u16
}

impl Access {
    /// Whether the caller holds the role in the application: what [`Access::holds`] says, worked out once
    /// for the very same application and settings of the system. When one of them changes there is
    /// another value of it, which nothing was worked out for; the groups of a caller never change, for
    /// other groups there is another caller.
    #[must_use]
    pub fn holds_in(&self, caller: &Caller, role: Role, application: &Arc<Application>) -> bool {
        let in_force = self.global.load();
        let roles = caller.memo.roles(application, &in_force.global, || {
            let held = |role: &Role| self.holds(caller, *role, Some(application));
            ROLES.iter().filter(|role| held(role)).fold(0, |roles, role| roles | bit(*role))
        });
        roles & bit(role) != 0
    }
}

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};
    use time::OffsetDateTime;

    use super::*;
    use crate::model::{
        Account, Accounts, ApplicationFlags, ApplicationId, ApplicationName, ApplicationType,
        FieldUpdate, Fields, GlobalInfo, Proof,
    };

    fn account(number: u8) -> Account {
        Account::parse(&format!("D\\a{number}")).unwrap()
    }

    fn accounts(numbers: &[u8]) -> Accounts {
        numbers.iter().copied().map(account).collect()
    }

    fn application(kind: ApplicationType, users: &[u8], administrators: &[u8]) -> Arc<Application> {
        let field = FieldUpdate { label: "id".into(), ..FieldUpdate::default() };
        Arc::new(Application {
            id: ApplicationId::generate(),
            name: ApplicationName::parse("App").unwrap(),
            kind,
            description: String::new(),
            contact: String::new(),
            users: accounts(users),
            windows_account: users.first().copied().map(account),
            administrators: accounts(administrators),
            administrators_same: false,
            allow_local_accounts: false,
            enabled: true,
            flags: ApplicationFlags::default_of(kind),
            ticket_timeout: 0,
            fields: Fields::parse(kind, vec![field]).unwrap().0,
            created_at: OffsetDateTime::UNIX_EPOCH,
            updated_at: OffsetDateTime::UNIX_EPOCH,
        })
    }

    fn global(lists: &[Vec<u8>]) -> GlobalInfo {
        GlobalInfo {
            trusted_hosts: accounts(&lists[2]),
            configuration_readers: accounts(&lists[3]),
            auditors: accounts(&lists[4]),
            ..GlobalInfo::initial(accounts(&lists[0]), accounts(&lists[1]))
        }
    }

    #[test]
    fn every_role_has_a_bit_of_its_own() {
        let all = ROLES.iter().fold(0_u16, |all, role| {
            assert_eq!(all & bit(*role), 0, "{role:?}");
            all | bit(*role)
        });
        assert_eq!(all.count_ones(), 9);
    }

    /// What happens in a system: an application or the settings change, a caller comes with other groups,
    /// or somebody asks.
    #[derive(Clone, Debug)]
    enum Step {
        Application(usize, Vec<u8>, Vec<u8>),
        System(Vec<Vec<u8>>),
        Caller(usize, u8, Vec<u8>),
        Ask(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let some = || vec(0..8_u8, 0..3);
        prop_oneof![
            1 => (0..40_usize, some(), some()).prop_map(|(it, u, a)| Step::Application(it, u, a)),
            1 => vec(some(), 5).prop_map(Step::System),
            1 => (0..3_usize, 0..8_u8, some()).prop_map(|(it, who, of)| Step::Caller(it, who, of)),
            12 => (0..3_usize, 0..40_usize).prop_map(|(who, it)| Step::Ask(who, it)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_remembered_is_what_would_be_worked_out(steps in vec(step(), 1..200)) {
            let none = vec![Vec::new(); 5];
            let access = Access::new(global(&none));
            let mut written_at = OffsetDateTime::UNIX_EPOCH;
            // More than are remembered for a caller.
            let kinds = [ApplicationType::Individual, ApplicationType::ConfigStore];
            let mut applications: Vec<_> =
                (0..40).map(|it| application(kinds[it % 2], &[(it % 8) as u8], &[])).collect();
            let caller = |who, groups: &[u8]| {
                let groups: BTreeMap<_, _> =
                    groups.iter().map(|it| (account(*it).key().to_owned(), String::new())).collect();
                Arc::new(Caller::new(account(who), groups, Proof::Certificate))
            };
            let mut callers: Vec<_> = (0..3).map(|who| caller(who, &[])).collect();
            for step in steps {
                match step {
                    Step::Application(it, users, administrators) => {
                        // The one before is freed here: a new one may get its address.
                        applications[it] = application(kinds[0], &[], &[]);
                        applications[it] = application(kinds[it % 2], &users, &administrators);
                    }
                    Step::System(lists) => {
                        written_at += std::time::Duration::from_secs(1);
                        access.adopt(global(&lists), written_at);
                    }
                    Step::Caller(it, who, groups) => callers[it] = caller(who, &groups),
                    Step::Ask(who, it) => {
                        let (caller, application) = (&callers[who], &applications[it]);
                        for role in ROLES {
                            let worked_out = access.holds(caller, role, Some(application));
                            let held = access.holds_in(caller, role, application);
                            prop_assert_eq!(held, worked_out, "{:?} of {:?}", role, caller);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_role_is_worked_out_once_for_the_same_application_and_settings() {
        let caller = Caller::new(account(1), BTreeMap::new(), Proof::Certificate);
        let (one, global) =
            (application(ApplicationType::Individual, &[], &[]), global(&vec![Vec::new(); 5]));
        let global = Arc::new(global);
        let again = || -> u16 { panic!("worked out again") };
        assert_eq!(caller.memo.roles(&one, &global, || 5), 5);
        assert_eq!(caller.memo.roles(&one, &global, again), 5);
        // The same in every word, and yet another one.
        let same = Arc::new(Application::clone(&one));
        assert_eq!(caller.memo.roles(&same, &global, || 6), 6);
        let settings = Arc::new(GlobalInfo::clone(&global));
        assert_eq!(caller.memo.roles(&one, &settings, || 7), 7);
        // A copy of the caller has worked out nothing.
        let copy = caller.clone();
        assert_eq!(copy.memo.roles(&one, &settings, || 8), 8);
        assert_eq!(caller.memo.roles(&one, &settings, again), 7);
    }
}

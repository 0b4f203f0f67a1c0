//! Masters, servers and a database, every step that any of them may take, and what must always hold.
//!
//! A step is one transaction or one change of a keystore. Messages are steps of their own, so they may
//! be late or never come; a partition is a run in which they do not come.

use sso_master::keystore::State as GenerationState;
use stateright::{Model, Property};

use crate::{
    masters::{Key, Keystore, Master, master_bit, server_bit},
    seen::Seen,
    servers::{Database, Known, Lease, Row, Server, Work, Writing},
};

/// Generations stand at their number less one.
pub(crate) const NUMBERS: usize = 3;
pub(crate) const MASTERS: usize = 2;
pub(crate) const SERVERS: usize = 2;
pub(crate) const EPOCHS: usize = 6;

/// One rule left out, to show that a property depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Writes do not look whether the generation is closed.
    HoldGeneration,
    /// Key rings are used without asking the database.
    Admission,
    /// A generation is activated without waiting for the servers.
    Acknowledgements,
    /// A generation is activated before the standby has it.
    Replication,
    /// A generation is closed without a count.
    Count,
    /// Sealing again overwrites whatever is there.
    CompareAndSwap,
    /// A generation is handed out without a backup.
    Backup,
    /// A standby is promoted whatever it lacks.
    PromotionCheck,
    /// A primary that the database does not follow yet takes numbers.
    Numbers,
    /// A generation is destroyed although the database has it open.
    OpenDestroyed,
    /// Restoring puts the keys of a backup over others.
    Foreign,
    /// Who takes another keystore over keeps none of its own aside.
    Aside,
    /// A generation is closed although it is the active one.
    Closable,
    /// Sealing again goes on under a work lease that another server has taken.
    Fencing,
}

/// How much of everything there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) masters: usize,
    pub(crate) servers: usize,
    pub(crate) rows: usize,
    /// Keys that are ever generated, the first one included.
    pub(crate) keys: u8,
    pub(crate) writes: u8,
    /// Of masters and servers together.
    pub(crate) crashes: u8,
    pub(crate) promotions: u8,
    /// Times that the work lease is taken.
    pub(crate) works: u8,
    /// Servers and masters may be left behind, and servers revoked.
    pub(crate) left_behind: bool,
    pub(crate) destroy: bool,
    /// Leases run down, restarted servers among them.
    pub(crate) leases: bool,
    /// The first primary is none of the masters: its machine is lost.
    pub(crate) primary_lost: bool,
    /// It begins after a rotation that left the standby behind.
    pub(crate) standby_behind: bool,
}

/// The whole.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) bounds: Bounds,
    pub(crate) broken: Option<Broken>,
}

/// What a server told a master of the database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Facts {
    pub(crate) epoch: u8,
    pub(crate) primary: u8,
    pub(crate) generations: [Option<Known>; NUMBERS],
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Spent {
    keys: u8,
    writes: u8,
    crashes: u8,
    promotions: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) masters: Vec<Master>,
    pub(crate) servers: Vec<Server>,
    pub(crate) database: Database,
    pub(crate) seen: Seen,
    spent: Spent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Prepare {
        master: usize,
    },
    VerifyBackup {
        master: usize,
    },
    Distribute {
        master: usize,
        left_behind: u8,
    },
    Activate {
        master: usize,
    },
    Destroy {
        master: usize,
        generation: usize,
    },
    Restore {
        master: usize,
    },
    Revoke {
        master: usize,
        server: usize,
    },
    Replicate {
        from: usize,
        to: usize,
    },
    ReportOfPeer {
        from: usize,
        to: usize,
    },
    Promote {
        master: usize,
    },
    KillMaster {
        master: usize,
    },
    StartMaster {
        master: usize,
    },
    /// Killed and started again at once.
    KillServer {
        server: usize,
    },
    Fetch {
        server: usize,
        master: usize,
    },
    Admit {
        server: usize,
    },
    Heartbeat {
        server: usize,
        master: usize,
    },
    LeaseEnds {
        server: usize,
    },
    Report {
        server: usize,
        master: usize,
    },
    Close {
        server: usize,
        master: usize,
        generation: usize,
    },
    Seal {
        server: usize,
        row: usize,
    },
    Commit {
        server: usize,
    },
    TakeWorkLease {
        server: usize,
    },
    ReadBatch {
        server: usize,
        row: usize,
    },
    WriteBatch {
        server: usize,
    },
}

impl Facts {
    fn of(database: &Database) -> Self {
        let Database { epoch, primary, generations, .. } = database;
        Self { epoch: *epoch, primary: *primary, generations: *generations }
    }

    pub(crate) fn highest(&self) -> Option<usize> {
        self.generations.iter().rposition(Option::is_some)
    }

    /// The key of a generation that values may be sealed under.
    pub(crate) fn open(&self, at: usize) -> Option<Key> {
        self.generations[at].filter(|known| !known.closed).map(|known| known.key)
    }

    pub(crate) fn closed(&self) -> [bool; NUMBERS] {
        self.generations.map(|known| known.is_some_and(|known| known.closed))
    }
}

impl Model for Life {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let Bounds { masters, servers, rows, primary_lost, .. } = self.bounds;
        let primary = if primary_lost { 9 } else { 0 };
        let keystore = Keystore::first(primary);
        let ring = keystore.ring();
        let mut database = Database {
            epoch: 0,
            primary: 0,
            generations: [None; NUMBERS],
            rows: vec![Row { value: 0, generation: 0, key: 0 }; rows],
            fencing: 0,
        };
        assert!(database.admit_key_ring(&ring));
        let server = Server { held: Some((ring, Lease::Write)), ..Server::default() };
        let mut seen = Seen { backups: 1, acknowledged: vec![0; rows], ..Seen::default() };
        seen.document[0] = Some(0);
        let mut state = State {
            masters: vec![
                Master { facts: Some(Facts::of(&database)), ..Master::running(keystore) };
                masters
            ],
            servers: vec![server; servers],
            database,
            seen,
            spent: Spent { keys: 1, ..Spent::default() },
        };
        if self.bounds.standby_behind {
            self.leave_the_standby_behind(&mut state);
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let bounds = &self.bounds;
        let masters = || 0..bounds.masters;
        for master in masters() {
            let it = &state.masters[master];
            if !it.up {
                actions.push(Action::StartMaster { master });
                continue;
            }
            if state.spent.crashes < bounds.crashes {
                actions.push(Action::KillMaster { master });
            }
            for to in masters().filter(|&to| to != master && state.masters[to].up) {
                actions.push(Action::Replicate { from: master, to });
                actions.push(Action::ReportOfPeer { from: master, to });
            }
            if it.leads(master) {
                self.actions_of_primary(state, master, actions);
            } else if state.spent.promotions < bounds.promotions {
                actions.push(Action::Promote { master });
            }
        }
        for server in 0..bounds.servers {
            self.actions_of_server(state, server, actions);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let done = self.step(&mut state, action);
        (done && state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        crate::properties::all()
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.masters.iter().all(|it| usize::from(it.keystore.epoch) < EPOCHS)
    }
}

impl Life {
    fn leave_the_standby_behind(&self, state: &mut State) {
        let (master, left_behind) = (0, master_bit(1));
        let servers = || 0..self.bounds.servers;
        let take = |server| [Action::Fetch { server, master }, Action::Admit { server }];
        let mut steps = vec![
            Action::Prepare { master },
            Action::VerifyBackup { master },
            Action::Distribute { master, left_behind },
        ];
        steps.extend(servers().flat_map(take));
        steps.extend(servers().map(|server| Action::Report { server, master }));
        steps.push(Action::Activate { master });
        steps.extend(servers().flat_map(take));
        for step in steps {
            assert!(self.step(state, step), "{step:?}");
        }
    }

    fn actions_of_primary(&self, state: &State, master: usize, actions: &mut Vec<Action>) {
        if state.spent.keys < self.bounds.keys {
            actions.push(Action::Prepare { master });
        }
        actions.push(Action::VerifyBackup { master });
        actions.push(Action::Distribute { master, left_behind: 0 });
        actions.push(Action::Activate { master });
        if self.bounds.left_behind {
            let peer = master_bit(1 - master);
            for left_behind in [server_bit(0), peer] {
                actions.push(Action::Distribute { master, left_behind });
            }
            actions.push(Action::Revoke { master, server: 0 });
        }
        if self.bounds.destroy {
            let retired = state.masters[master].keystore.at(GenerationState::Retired);
            actions.extend(retired.map(|generation| Action::Destroy { master, generation }));
        }
        if self.bounds.promotions > 0 {
            actions.push(Action::Restore { master });
        }
    }

    fn actions_of_server(&self, state: &State, server: usize, actions: &mut Vec<Action>) {
        let it = &state.servers[server];
        if state.spent.crashes < self.bounds.crashes {
            actions.push(Action::KillServer { server });
        }
        if it.offer.is_some() {
            actions.push(Action::Admit { server });
        }
        for master in (0..self.bounds.masters).filter(|&master| state.masters[master].up) {
            actions.push(Action::Fetch { server, master });
            actions.push(Action::Heartbeat { server, master });
            actions.push(Action::Report { server, master });
            let closing =
                (0..NUMBERS).filter(|&at| state.masters[master].is_closable(at, self.broken));
            actions.extend(closing.map(|generation| Action::Close { server, master, generation }));
        }
        if it.writing.is_some() {
            actions.push(Action::Commit { server });
        }
        let Some((ring, lease)) = &it.held else { return };
        if self.bounds.leases {
            actions.push(Action::LeaseEnds { server });
        }
        for row in 0..self.bounds.rows {
            if *lease == Lease::Write && it.writing.is_none() && self.bounds.writes > 0 {
                actions.push(Action::Seal { server, row });
            }
            if it.work.is_some() && state.database.rows[row].generation != ring.active {
                actions.push(Action::ReadBatch { server, row });
            }
        }
        if state.database.fencing < self.bounds.works {
            actions.push(Action::TakeWorkLease { server });
        }
        if it.work.is_some_and(|work| work.batch.is_some()) {
            actions.push(Action::WriteBatch { server });
        }
    }

    /// Whether the step could be taken.
    fn step(&self, state: &mut State, action: Action) -> bool {
        let State { masters, servers, database, seen, spent } = state;
        let broken = self.broken;
        match action {
            Action::Prepare { master } => {
                let done = masters[master].prepare(spent.keys, broken);
                spent.keys += 1;
                done
            }
            Action::VerifyBackup { master } => {
                let done = masters[master].verify_backup();
                seen.document = masters[master].keystore.keys();
                seen.backups |= seen.document.iter().flatten().fold(0, |bits, key| bits | 1 << key);
                done
            }
            Action::Distribute { master, left_behind } => {
                masters[master].distribute(left_behind, broken)
            }
            Action::Activate { master } => {
                let sizes = (self.bounds.servers, self.bounds.masters);
                let Some(left) = masters[master].activate(master, sizes, broken) else {
                    return false;
                };
                let ring = masters[master].keystore.ring();
                let key = ring.keys[ring.active].expect("the active key");
                seen.excused[usize::from(key)] |= left;
                true
            }
            Action::Destroy { master, generation } => {
                let Some(key) = masters[master].destroy(generation, broken) else { return false };
                seen.destroyed |= 1 << key;
                true
            }
            Action::Restore { master } => {
                seen.restored = true;
                masters[master].restore(&seen.document, broken)
            }
            Action::Revoke { master, server } => {
                let keystore = &mut masters[master].keystore;
                keystore.revoked |= server_bit(server);
                keystore.version += 1;
                seen.revoked |= server_bit(server);
                // Once is enough.
                keystore.revoked != 0 && keystore.version < 12
            }
            Action::Replicate { from, to } => {
                let newest = masters[from].keystore.clone();
                if !newest.is_newer_than(&masters[to].keystore) {
                    return false;
                }
                seen.stepped_down |= usize::from(masters[to].keystore.primary) == to;
                masters[to].adopt(&newest, broken);
                true
            }
            Action::ReportOfPeer { from, to } => {
                let Keystore { epoch, version, .. } = masters[from].keystore;
                masters[to].hear_of(epoch, version, master_bit(from));
                true
            }
            Action::Promote { master } => {
                spent.promotions += 1;
                let (it, facts) = (&mut masters[master], Facts::of(database));
                let heard_the_truth = it.facts.as_ref() == Some(&facts);
                seen.promoted_incomplete |= heard_the_truth && !it.is_complete(&facts);
                it.promote(master, broken)
            }
            Action::KillMaster { master } => {
                spent.crashes += 1;
                masters[master] = masters[master].killed();
                true
            }
            Action::StartMaster { master } => {
                masters[master].up = true;
                true
            }
            Action::KillServer { server } => {
                spent.crashes += 1;
                servers[server] = Server::default();
                true
            }
            Action::Fetch { server, master } => {
                let keystore = &masters[master].keystore;
                if keystore.revoked & server_bit(server) != 0 {
                    servers[server].held = None;
                    servers[server].offer = None;
                    servers[server].work = None;
                } else {
                    servers[server].offer = Some(keystore.ring());
                }
                true
            }
            Action::Admit { server } => {
                let Some(ring) = servers[server].offer.take() else { return false };
                if database.admit_key_ring(&ring) || broken == Some(Broken::Admission) {
                    seen.admitted(&ring);
                    servers[server].held = Some((ring, Lease::Write));
                }
                true
            }
            Action::Heartbeat { server, master } => {
                let keystore = &masters[master].keystore;
                let Some((ring, lease)) = &mut servers[server].held else { return false };
                if keystore.revoked & server_bit(server) != 0 {
                    servers[server] =
                        Server { writing: servers[server].writing, ..Server::default() };
                } else if (ring.epoch, ring.version) == (keystore.epoch, keystore.version) {
                    *lease = Lease::Write;
                }
                true
            }
            Action::LeaseEnds { server } => {
                let it = &mut servers[server];
                match it.held.take() {
                    Some((ring, Lease::Write)) => it.held = Some((ring, Lease::Read)),
                    Some((_, Lease::Read)) | None => it.work = None,
                }
                true
            }
            Action::Report { server, master } => {
                let it = &mut masters[master];
                if let Some((ring, _)) = &servers[server].held {
                    it.hear_of(ring.epoch, ring.version, server_bit(server));
                }
                let facts = Facts::of(database);
                it.hear_facts(master, &facts);
                seen.stepped_down |= it.stepped_down;
                if it.leads(master) {
                    it.retire(facts.closed());
                }
                it.facts = Some(facts);
                true
            }
            Action::Close { server, master, generation } => {
                let order = &masters[master];
                let Some((ring, _)) = &servers[server].held else { return false };
                let of_order = (order.keystore.epoch, order.keystore.primary);
                order.leads(master)
                    && (ring.epoch, ring.primary) == of_order
                    && database.close_generation(generation, broken)
            }
            Action::Seal { server, row } => {
                let Some((ring, _)) = &servers[server].held else { return false };
                if spent.writes >= self.bounds.writes {
                    return false;
                }
                spent.writes += 1;
                let key = ring.keys[ring.active].expect("the active key");
                let value = spent.writes;
                servers[server].writing =
                    Some(Writing { row, generation: ring.active, key, value });
                true
            }
            Action::Commit { server } => {
                let Some(writing) = servers[server].writing.take() else { return false };
                if database.write(writing, broken) {
                    seen.sealed(writing.key);
                    seen.acknowledged[writing.row] = writing.value;
                } else {
                    seen.refused_late = true;
                }
                true
            }
            Action::TakeWorkLease { server } => {
                database.fencing += 1;
                servers[server].work = Some(Work { fencing: database.fencing, batch: None });
                true
            }
            Action::ReadBatch { server, row } => {
                let it = &mut servers[server];
                let (Some((ring, _)), Some(work)) = (&it.held, &mut it.work) else { return false };
                let read = database.rows[row];
                // It has to be opened first.
                if ring.keys[read.generation] != Some(read.key) {
                    return false;
                }
                let key = ring.keys[ring.active].expect("the active key");
                work.batch = Some((row, read, ring.active, key));
                true
            }
            Action::WriteBatch { server } => {
                let Some(work) = servers[server].work.as_mut() else { return false };
                if database.reseal(*work, broken) {
                    seen.resealed = true;
                    seen.sealed(database.rows[work.batch.expect("a batch").0].key);
                }
                work.batch = None;
                true
            }
        }
    }
}

//! `sso secret rotate`: prepare, back up, prove, hand out; then perhaps wait.

use std::path::{Path, PathBuf};

use serde::Serialize;
use sso_client::{
    secret::{Locks, Secret},
    v1::{GenerationState, GetSecretStatusResponse},
};

use super::{
    Master,
    args::RotateArgs,
    made::{Target, Written, back_up},
    numbers, paths,
    wait::{Wait, Waited},
};
use crate::{
    commands::shown::{or_dash, yes},
    failure::Failure,
    output::Output,
};

#[derive(Debug, Serialize)]
struct RotatedDocument {
    generation: u32,
    fingerprint: String,
    backup: Option<PathBuf>,
    shares: Vec<PathBuf>,
    active: bool,
    waiting_for: Vec<String>,
    drained: bool,
    retired: Vec<u32>,
}

pub(super) async fn run(
    args: RotateArgs,
    master: &Master<'_>,
    output: &Output,
) -> Result<(), Failure> {
    if args.backup.is_some() && !args.leave_behind.is_empty() {
        require_known(&master.connect()?.status().await?, &args.leave_behind)?;
    }
    let mut done = match &args.backup {
        Some(file) => begin(file, &args, master, output).await?,
        None => go_on(&args, master).await?,
    };
    if args.wait {
        let wait = Wait { generation: done.generation, retire: args.retire };
        let Waited { retired } = wait.run(&master.connect()?, master.patience(), output).await?;
        (done.active, done.drained, done.retired) = (true, true, retired);
        done.waiting_for.clear();
    }
    report(&done, output)
}

async fn begin(
    file: &Path,
    args: &RotateArgs,
    master: &Master<'_>,
    output: &Output,
) -> Result<RotatedDocument, Failure> {
    let target = Target::new(file, args.locks.shares())?;
    let locks = args.locks.read(output)?;
    if locks.password.is_none() && locks.shares.is_none() {
        return Err(Failure::usage_hint(
            "a backup that only officers open cannot be opened again here, so it does not count",
            "add --password-file or --shares",
        ));
    }
    let secret = master.connect()?;
    let (generation, written) = prepare(&secret, &target, &locks).await?;
    let shares = written.keep();
    output.note(&format!("generation {generation} is backed up in {}", file.display()));
    let rotated = secret.rotate(generation, &args.leave_behind, args.rows_per_second).await;
    let rotated = rotated.inspect_err(|_| {
        output.note(&format!(
            "generation {generation} stays prepared and its backup is good: sso secret rotate \
             --continue goes on with it"
        ));
    })?;
    let fingerprint = fingerprint_of(&secret.status().await?, generation);
    Ok(RotatedDocument {
        generation,
        fingerprint,
        backup: Some(file.to_owned()),
        shares,
        active: rotated.active,
        waiting_for: rotated.waiting_for,
        drained: false,
        retired: Vec::new(),
    })
}

/// Refuses a name that nobody has before anything is made.
fn require_known(status: &GetSecretStatusResponse, names: &[String]) -> Result<(), Failure> {
    let servers = status.servers.iter().map(|it| it.name.as_str());
    let known: Vec<_> = servers.chain(status.masters.iter().map(|it| it.name.as_str())).collect();
    let stranger = names.iter().find(|name| !known.contains(&name.as_str()));
    stranger.map_or(Ok(()), |name| {
        Err(Failure::refused(
            format!("there is no server or master {name:?} to leave behind"),
            format!("it is one of {}", known.join(", ")),
        ))
    })
}

/// A generation whose key came back out of its backup.
pub(super) async fn prepare(
    secret: &Secret,
    target: &Target,
    locks: &Locks,
) -> Result<(u32, Written), Failure> {
    let prepared = secret.prepare(locks).await?;
    let written = back_up(secret, &prepared.backup, target, locks).await?;
    if !written.has(prepared.generation, &prepared.fingerprint) {
        written.keep();
        return Err(Failure::refused(
            format!("the backup does not give generation {} back", prepared.generation),
            "nothing was rotated; the file was kept, because it counts as a backup of the others; try again",
        ));
    }
    Ok((prepared.generation, written))
}

/// The generation that was prepared or handed out before, or else the active one while others drain.
async fn go_on(args: &RotateArgs, master: &Master<'_>) -> Result<RotatedDocument, Failure> {
    let secret = master.connect()?;
    let status = secret.status().await?;
    let (generation, active) = unfinished(&status)?;
    let mut document = RotatedDocument {
        generation,
        fingerprint: fingerprint_of(&status, generation),
        backup: None,
        shares: Vec::new(),
        active,
        waiting_for: Vec::new(),
        drained: false,
        retired: Vec::new(),
    };
    if !active {
        let rotated = secret.rotate(generation, &args.leave_behind, args.rows_per_second).await?;
        (document.active, document.waiting_for) = (rotated.active, rotated.waiting_for);
    }
    Ok(document)
}

/// The generation that a rotation is about, and whether it is active already.
fn unfinished(status: &GetSecretStatusResponse) -> Result<(u32, bool), Failure> {
    use GenerationState as State;
    let of = |states: &[State]| {
        let found = status.generations.iter().find(|one| states.contains(&one.state()));
        found.map(|one| one.generation)
    };
    if let Some(generation) = of(&[State::Prepared, State::Distributed]) {
        return Ok((generation, false));
    }
    match (of(&[State::Draining]), of(&[State::Active])) {
        (Some(_), Some(active)) => Ok((active, true)),
        (None, _) | (Some(_), None) => Err(Failure::refused(
            "there is no rotation to go on with",
            "sso secret rotate --backup FILE begins one",
        )),
    }
}

fn fingerprint_of(status: &GetSecretStatusResponse, generation: u32) -> String {
    let found = status.generations.iter().find(|one| one.generation == generation);
    found.map(|one| one.fingerprint.clone()).unwrap_or_default()
}

fn report(done: &RotatedDocument, output: &Output) -> Result<(), Failure> {
    output.document(done, |output| {
        let backup = done.backup.as_ref().map(|path| path.display().to_string());
        output.pairs(vec![
            ("generation", done.generation.to_string()),
            ("fingerprint", or_dash(&done.fingerprint)),
            ("backup", or_dash(&backup.unwrap_or_default())),
            ("shares", or_dash(&paths(&done.shares))),
            ("active", yes(done.active)),
            ("waits for", or_dash(&done.waiting_for.join("; "))),
            ("retired", numbers(&done.retired)),
        ])
    })?;
    if !done.active {
        output.note(
            "it becomes active by itself; 'sso secret status' shows what it waits for, and 'sso secret \
             rotate --continue --leave-behind NAME' does not wait for a server that is away",
        );
    } else if !done.drained {
        output
            .note("the servers seal everything again; 'sso secret status' shows how far they are");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sso_client::v1::SecretGeneration;

    use super::*;

    #[test]
    fn what_there_is_to_go_on_with() {
        use GenerationState as State;
        let of = |states: &[State]| {
            let generations = (1..).zip(states).map(|(generation, &state)| SecretGeneration {
                generation,
                state: state.into(),
                ..Default::default()
            });
            let generations = generations.collect();
            unfinished(&GetSecretStatusResponse { generations, ..Default::default() }).ok()
        };
        assert_eq!(of(&[State::Active, State::Prepared]), Some((2, false)));
        assert_eq!(of(&[State::Draining, State::Active, State::Distributed]), Some((3, false)));
        assert_eq!(of(&[State::Draining, State::Active]), Some((2, true)));
        assert_eq!(of(&[State::Retired, State::Active]), None);
    }
}

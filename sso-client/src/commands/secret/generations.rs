//! `sso secret retire`, `destroy` and `promote`.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use serde_json::json;
use sso_client::v1::GetSecretStatusResponse;

use super::{
    Master,
    args::{DestroyArgs, PromoteArgs},
};
use crate::{
    commands::confirm,
    failure::Failure,
    output::{Output, escape},
};

pub(super) async fn retire(
    generation: u32,
    master: &Master<'_>,
    output: &Output,
) -> Result<(), Failure> {
    master.connect()?.retire(generation).await?;
    output.document(&json!({ "generation": generation, "state": "retired" }), |output| {
        output.line(&format!(
            "generation {generation} is retired: nothing is sealed under it, and nothing will be"
        ))
    })
}

pub(super) async fn destroy(
    args: DestroyArgs,
    master: &Master<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let generation = args.generation;
    if args.fingerprint.is_none() && !io::stdin().is_terminal() {
        return Err(Failure::usage_hint(
            "there is no terminal to ask on whether the right generation is meant",
            "--fingerprint HEX, as 'sso secret status' shows it",
        ));
    }
    let secret = master.connect()?;
    let fingerprint = match args.fingerprint {
        Some(fingerprint) => {
            if !args.yes {
                confirm(&format!("Destroy the key of generation {generation} for good?"), false)?;
            }
            fingerprint
        }
        None => {
            let known = fingerprint_of(&secret.status().await?, generation)?;
            ask_for(generation, &known)?;
            known
        }
    };
    secret.destroy(generation, &fingerprint).await?;
    let document = json!({
        "generation": generation, "fingerprint": fingerprint, "state": "destroyed",
    });
    output.document(&document, |output| {
        output.line(&format!("the key of generation {generation} is gone"))
    })
}

fn fingerprint_of(status: &GetSecretStatusResponse, generation: u32) -> Result<String, Failure> {
    let found = status.generations.iter().find(|one| one.generation == generation);
    found.map(|one| one.fingerprint.clone()).ok_or_else(|| {
        Failure::refused(
            format!("the keystore has no generation {generation}"),
            "'sso secret status' lists them",
        )
    })
}

/// Whoever destroys a key has looked at what it is.
fn ask_for(generation: u32, fingerprint: &str) -> Result<(), Failure> {
    let ask = || {
        let mut stderr = io::stderr().lock();
        write!(
            stderr,
            "Generation {generation} has the fingerprint {}. What is sealed under it, in old backups of \
             the database too, opens then with backups of the master secret alone.\n\
             Type the fingerprint to destroy its key: ",
            escape(fingerprint)
        )?;
        stderr.flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        Ok::<_, io::Error>(answer)
    };
    let answer = ask().map_err(|error| Failure::io("asking for confirmation", error))?;
    match answer.trim().eq_ignore_ascii_case(fingerprint) {
        true => Ok(()),
        false => {
            Err(Failure::Refused { message: "not confirmed; nothing was done".into(), hint: None })
        }
    }
}

pub(super) async fn promote(
    args: PromoteArgs,
    master: &Master<'_>,
    output: &Output,
) -> Result<(), Failure> {
    if args.force && !args.yes {
        if !io::stdin().is_terminal() {
            return Err(Failure::usage_hint(
                "there is no terminal to ask on whether to promote a master that may lack generations",
                "--yes, where that is known",
            ));
        }
        confirm("Values of generations that this master lacks will not open. Promote it?", false)?;
    } else {
        confirm("Make this master the primary?", args.yes)?;
    }
    let epoch = master.connect()?.promote(args.force).await?;
    output.document(&json!({ "epoch": epoch, "role": "primary" }), |output| {
        output.line(&format!("this master is the primary, in epoch {epoch}"))
    })
}

#[cfg(test)]
mod tests {
    use sso_client::v1::SecretGeneration;

    use super::*;

    #[test]
    fn the_fingerprint_is_that_of_the_generation() {
        let one = |generation, fingerprint: &str| SecretGeneration {
            generation,
            fingerprint: fingerprint.into(),
            ..Default::default()
        };
        let generations = vec![one(1, "aa"), one(2, "bb")];
        let status = GetSecretStatusResponse { generations, ..Default::default() };
        assert_eq!(fingerprint_of(&status, 2).unwrap(), "bb");
        assert_eq!(fingerprint_of(&status, 3).unwrap_err().exit_code(), 1);
    }
}

//! `ssoconfig -generatesecret`, `-backupsecret`, `-restoresecret` and `-displayreminder`: what `sso secret`
//! does, with the questions of the reference product.

use std::path::Path;

use super::{
    super::secret::for_tools::{
        back_up_to, check_free, generate as new_generation, reminder_of, restore_from, weaknesses,
    },
    frame::Call,
    prompt::Prompt,
};
use crate::{failure::Failure, output::escape};

pub(super) async fn generate(file: &Path, call: &Call<'_>) -> Result<(), Failure> {
    let (password, reminder) = asked(file, call)?;
    let (generation, waiting_for) =
        new_generation(file, password, reminder, call.service()).await?;
    call.line(&format!("Master secret {generation} generated."))?;
    call.line(&format!("Backup written to {}.", file.display()))?;
    if !waiting_for.is_empty() {
        call.line(&format!("It is in use as soon as these have it: {}.", waiting_for.join("; ")))?;
    }
    Ok(())
}

pub(super) async fn back_up(file: &Path, call: &Call<'_>) -> Result<(), Failure> {
    let (password, reminder) = asked(file, call)?;
    let generations = back_up_to(file, password, reminder, call.service()).await?;
    call.line(&format!("Backup of {} written to {}.", counted(&generations), file.display()))
}

pub(super) async fn restore(file: &Path, call: &Call<'_>) -> Result<(), Failure> {
    let reminder = reminder_of(file)?;
    if !reminder.is_empty() {
        call.line(&format!("Password reminder : {}", escape(&reminder)))?;
    }
    let password = Prompt::open()?.password()?;
    let generations = restore_from(file, password, call.service()).await?;
    call.line(&format!("{} restored.", counted(&generations)))
}

pub(super) fn display_reminder(file: &Path, call: &Call<'_>) -> Result<(), Failure> {
    call.line(&format!("Password reminder : {}", escape(&reminder_of(file)?)))
}

/// Password and reminder of a new backup; nobody is asked where the file is in the way.
fn asked(file: &Path, call: &Call<'_>) -> Result<(sso_client::SecretText, String), Failure> {
    check_free(file)?;
    let (password, reminder) = Prompt::open()?.new_password()?;
    let found = weaknesses(&password, &reminder);
    if !found.is_empty() {
        call.warn(&format!("The password is weak: {}.", found.join(", ")));
    }
    Ok((password, reminder))
}

fn counted(generations: &[u32]) -> String {
    match generations.len() {
        1 => "1 master secret".to_owned(),
        many => format!("{many} master secrets"),
    }
}

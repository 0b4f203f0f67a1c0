//! One file for each noun of the command line.

mod app;
mod app_file;
mod audit;
mod cert;
mod completion;
mod config;
mod config_set;
mod dev;
mod server;
mod shown;
mod status;
mod system;

use sso_client::{Client, Environment, Profile};
use sso_core::exit::Exit;

use crate::{
    cli::{Command, GlobalArgs},
    failure::Failure,
    output::Output,
};

pub(crate) use app::AppCommand;
pub(crate) use audit::AuditCommand;
pub(crate) use cert::CertArgs;
pub(crate) use completion::{CompletionArgs, ManArgs};
pub(crate) use config::ConfigCommand;
pub(crate) use dev::DevArgs;
pub(crate) use server::ServerCommand;
pub(crate) use system::SystemCommand;

/// Runs the command and returns the exit code of the process.
pub(crate) fn run(command: Command, global: &GlobalArgs, output: &Output) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::io("starting the runtime", error))?;
    let code = runtime.block_on(dispatch(command, global, output));
    runtime.shutdown_background();
    code
}

async fn dispatch(command: Command, global: &GlobalArgs, output: &Output) -> Result<u8, Failure> {
    let service = Service { global };
    match command {
        Command::Status => status::run(&service, output).await?,
        Command::App { command } => app::run(command, &service, output).await?,
        Command::Config { command } => config::run(command, &service, output).await?,
        Command::Audit { command } => audit::run(command, &service, output).await?,
        Command::Server { command } => server::run(command, &service, output).await?,
        Command::System { command } => system::run(command, &service, output).await?,
        Command::Dev(args) => return dev::run(args, output).await,
        Command::Cert(args) => cert::run(args, output)?,
        Command::Completion(args) => completion::run(&args)?,
        Command::Man(args) => completion::manual(&args)?,
    }
    Ok(Exit::Ok.code())
}

/// Opens the connection once a command knows that its arguments make sense.
pub(crate) struct Service<'g> {
    global: &'g GlobalArgs,
}

impl Service<'_> {
    pub(crate) fn connect(&self) -> Result<Client, Failure> {
        let overrides = self.global.overrides();
        let profile = Profile::resolve(&overrides, &Environment::read())?;
        let client = Client::connect(&profile)?;
        Ok(match self.global.timeout {
            Some(deadline) => client.with_deadline(deadline),
            None => client,
        })
    }
}

/// Asks on a terminal before something is destroyed; elsewhere the command itself is the consent.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    use std::io::{BufRead as _, IsTerminal as _, Write as _};
    if yes || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    let ask = || {
        let mut stderr = std::io::stderr().lock();
        write!(stderr, "{} [y/N] ", crate::output::escape(question))?;
        stderr.flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = ask().map_err(|error| Failure::io("asking for confirmation", error))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => {
            Err(Failure::Refused { message: "not confirmed; nothing was done".into(), hint: None })
        }
    }
}

/// Bytes of the largest file that is read; the readers refuse much smaller ones with a position.
const MAX_FILE: u64 = 8 * 1024 * 1024;

/// A file given by the user; standard input for `-`. It may hold secrets.
pub(crate) fn read_file(file: &std::path::Path) -> Result<zeroize::Zeroizing<Vec<u8>>, Failure> {
    use std::io::Read as _;
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    let read = if file == std::path::Path::new("-") {
        std::io::stdin().lock().take(MAX_FILE).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
    };
    match read {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Failure::io(crate::failure::file_name(file), error)),
    }
}

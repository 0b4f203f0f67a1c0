//! One file for each noun of the command line.

mod app;
mod app_file;
mod audit;
mod cert;
mod compat;
mod completion;
mod config;
mod config_set;
mod credentials;
mod dev;
mod explain;
mod logon;
mod mapping;
mod principal;
mod secret;
mod server;
mod shown;
mod status;
mod system;
mod ticket;
mod tls_shown;

use std::ffi::OsString;

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
pub(crate) use compat::{CompatCommand, Tool};
pub(crate) use completion::{CompletionArgs, ManArgs};
pub(crate) use config::ConfigCommand;
pub(crate) use credentials::CredentialsCommand;
pub(crate) use dev::DevArgs;
pub(crate) use explain::ExplainArgs;
pub(crate) use logon::LogonArgs;
pub(crate) use mapping::MappingCommand;
pub(crate) use principal::PrincipalCommand;
pub(crate) use secret::SecretArgs;
pub(crate) use server::ServerCommand;
pub(crate) use system::SystemCommand;
pub(crate) use ticket::TicketCommand;

/// Runs the command and returns the exit code of the process.
pub(crate) fn run(command: Command, global: &GlobalArgs, output: &Output) -> Result<u8, Failure> {
    let runtime = runtime()?;
    let code = runtime.block_on(dispatch(command, global, output));
    runtime.shutdown_background();
    code
}

/// Runs one of the compatible tools, to which the process was started by its name.
pub(crate) fn run_tool(tool: Tool, arguments: &[OsString], output: &Output) -> u8 {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(failure) => return output.failure(&failure),
    };
    let code = runtime.block_on(compat::start(tool, arguments, &GlobalArgs::default()));
    runtime.shutdown_background();
    code
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::io("starting the runtime", error))
}

async fn dispatch(command: Command, global: &GlobalArgs, output: &Output) -> Result<u8, Failure> {
    let service = Service { global };
    match command {
        Command::Status => status::run(&service, output).await?,
        Command::App { command } => app::run(command, &service, output).await?,
        Command::Config { command } => config::run(command, &service, output).await?,
        Command::Mapping { command } => mapping::run(command, &service, output).await?,
        Command::Credentials { command } => credentials::run(command, &service, output).await?,
        Command::Ticket { command } => ticket::run(command, &service, output).await?,
        Command::Logon(args) => logon::run(args, &service, output).await?,
        Command::Explain(args) => explain::run(args, &service, output).await?,
        Command::Audit { command } => audit::run(command, &service, output).await?,
        Command::Principal { command } => principal::run(command, &service, output).await?,
        Command::Secret(args) => secret::run(args, &service, output).await?,
        Command::Server { command } => server::run(command, &service, output).await?,
        Command::System { command } => system::run(command, &service, output).await?,
        Command::Compat { command } => return compat::run(command, global, output).await,
        Command::Dev(args) => return dev::run(args, output).await,
        Command::Cert(args) => return cert::run(args, &service, output).await,
        Command::Completion(args) => completion::run(&args)?,
        Command::Man(args) => completion::manual(&args)?,
    }
    Ok(Exit::Ok.code())
}

/// Opens the connection once a command knows that its arguments make sense.
pub(crate) struct Service<'g> {
    global: &'g GlobalArgs,
}

/// How long a batch of changes, or a change of the master secret, may take when nothing else is said.
const BATCH_DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

impl Service<'_> {
    pub(crate) fn profile(&self) -> Result<Profile, Failure> {
        Ok(Profile::resolve(&self.global.overrides(), &Environment::read())?)
    }

    /// A connection to a master secret server, which takes its time with passwords.
    pub(crate) fn connect_master(&self, master: Option<&str>) -> Result<Client, Failure> {
        let mut overrides = self.global.overrides();
        overrides.master = master.map(str::to_owned);
        let profile = Profile::resolve_master(&overrides, &Environment::read())?;
        let client = Client::connect(&profile)?;
        Ok(client.with_deadline(self.global.timeout.unwrap_or(BATCH_DEADLINE)))
    }

    /// A connection with more time for each call, which does many things.
    pub(crate) fn connect_for_batches(&self) -> Result<Client, Failure> {
        let client = self.connect()?;
        Ok(match self.global.timeout {
            Some(_) => client,
            None => client.with_deadline(BATCH_DEADLINE),
        })
    }

    pub(crate) fn connect(&self) -> Result<Client, Failure> {
        let client = Client::connect(&self.profile()?)?;
        Ok(match self.global.timeout {
            Some(deadline) => client.with_deadline(deadline),
            None => client,
        })
    }
}

/// Asks on a terminal before something is destroyed; elsewhere the command itself is the consent.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    confirm_below(&[], question, yes)
}

/// The same below lines that have to be read first.
pub(crate) fn confirm_below(lines: &[String], question: &str, yes: bool) -> Result<(), Failure> {
    use std::io::{BufRead as _, IsTerminal as _, Write as _};
    if yes || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    let ask = || {
        let mut stderr = std::io::stderr().lock();
        for line in lines {
            writeln!(stderr, "{}", crate::output::escape(line))?;
        }
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
const MAX_FILE: usize = 8 * 1024 * 1024;

/// A file given by the user; standard input for `-`. It may hold secrets.
pub(crate) fn read_file(file: &std::path::Path) -> Result<zeroize::Zeroizing<Vec<u8>>, Failure> {
    read_file_of(file, MAX_FILE)
}

/// The same for a file that may have `longest` bytes; of a longer one there is a byte too many, so that
/// its reader refuses it.
pub(crate) fn read_file_of(
    file: &std::path::Path,
    longest: usize,
) -> Result<zeroize::Zeroizing<Vec<u8>>, Failure> {
    use std::io::Read as _;
    let longest = u64::try_from(longest).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    let read = if file == std::path::Path::new("-") {
        std::io::stdin().lock().take(longest).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(longest).read_to_end(&mut bytes))
    };
    match read {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Failure::io(crate::failure::file_name(file), error)),
    }
}

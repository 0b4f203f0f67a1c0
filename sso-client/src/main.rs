//! The `sso` command.

mod cli;
mod commands;
mod failure;
mod output;
mod values;

use std::process::ExitCode;

fn main() -> ExitCode {
    sso_core::tls::install_provider();
    let mut arguments = std::env::args_os();
    if let Some(tool) = arguments.next().and_then(|program| commands::Tool::of_program(&program)) {
        let arguments: Vec<_> = arguments.collect();
        let output = output::Output::new(&cli::GlobalArgs::default());
        return ExitCode::from(commands::run_tool(tool, &arguments, &output));
    }
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    let output = output::Output::new(&cli.global);
    let outcome = commands::run(cli.command, &cli.global, &output);
    ExitCode::from(match outcome {
        Ok(code) => code,
        Err(failure) => output.failure(&failure),
    })
}

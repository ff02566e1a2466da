//! Calotype: an image management service, and its command line.
//!
//! One binary: `serve` and `worker` run the service, `demo` shows it at work, and the rest of the
//! commands are an HTTP client of any such service. Standard output carries results only; progress,
//! notes and errors go to standard error. The exit codes are in [`exit::Exit`].

mod cli;
mod client;
mod clouds;
mod commands;
mod config;
mod demo;
mod exit;
mod output;
mod serve;
mod system;
mod telemetry;
#[cfg(test)]
mod testing;

use std::process::ExitCode;

use calotype_convert::jail::Cell;
use clap::Parser;

use crate::cli::{Cli, Command, ConfigCommand, JailArgs};
use crate::config::Environment;
use crate::exit::{Exit, Failure};
use crate::output::Output;

/// Answers are made of many short-lived pieces: a page of images took a fifth of its time in the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::try_parse() {
        // Before there is any other thread: what locks a process in is done to the thread that does it.
        Ok(Cli {
            command: Command::Jail(args),
            ..
        }) => jail(args),
        Ok(cli) => run(cli),
        Err(error) => {
            // Help and version go to standard output; a closed pipe there is not an error.
            let code = error.exit_code();
            error.print().ok();
            ExitCode::from(u8::try_from(code).unwrap_or(Exit::Usage.code()))
        }
    }
}

/// Becomes the program, or says why not.
fn jail(args: JailArgs) -> ExitCode {
    use std::io::Write as _;
    let mut words = args.program.into_iter();
    let cell = Cell {
        parent: args.parent,
        memory: args.memory,
        cpu_seconds: args.cpu_seconds,
        file_size: args.file_size,
        program: words.next().unwrap_or_default().into(),
        arguments: words.collect(),
    };
    let (error, code) = cell.enter();
    let _ = writeln!(std::io::stderr(), "{error}");
    ExitCode::from(code)
}

fn run(cli: Cli) -> ExitCode {
    let output = Output::new(cli.output);
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("the runtime did not start: {error}")))
        .and_then(|runtime| {
            let outcome = runtime.block_on(dispatch(cli, &output));
            // A thread that still reads standard input must not hold up the end.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.exit.code())
        }
    }
}

async fn dispatch(cli: Cli, output: &Output) -> Result<(), Failure> {
    let environment = Environment::of_process();
    match cli.command {
        Command::Serve(args) => Box::pin(serve::run(args, &environment, output)).await,
        Command::Worker(args) => Box::pin(serve::run_worker(args, &environment, output)).await,
        Command::Demo(args) => Box::pin(demo::run(args, output)).await,
        Command::Config(ConfigCommand::Check(args)) => {
            commands::config::check(&args, &environment, output)
        }
        Command::Config(ConfigCommand::Default) => commands::config::default(output),
        Command::Doctor(args) => Box::pin(serve::doctor(&args, &environment, output)).await,
        Command::MigrateCatalog(args) => {
            Box::pin(serve::migrate_catalog(&args, &environment, output)).await
        }
        Command::MigrateStore(args) => {
            Box::pin(commands::stores::migrate(
                &args,
                &cli.connection,
                &environment,
                output,
            ))
            .await
        }
        Command::Image(command) => {
            Box::pin(commands::image::run(
                command,
                &cli.connection,
                &environment,
                output,
            ))
            .await
        }
        Command::Job(command) => {
            Box::pin(commands::job::run(
                command,
                &cli.connection,
                &environment,
                output,
            ))
            .await
        }
        Command::Keys(command) => {
            Box::pin(commands::keys::run(
                command,
                &cli.connection,
                &environment,
                output,
            ))
            .await
        }
        Command::Openapi => output.text(&openapi()?),
        // Before the runtime, in `main`.
        Command::Jail(_) => Ok(()),
        Command::Admin(command) => {
            Box::pin(commands::admin::run(
                command,
                &cli.connection,
                &environment,
                output,
            ))
            .await
        }
    }
}

/// The API's description, as `GET /openapi.json` serves it.
fn openapi() -> Result<String, Failure> {
    calotype_api::openapi::document()
        .to_pretty_json()
        .map_err(|error| Failure::new(format!("the description can't be rendered: {error}")))
}

//! The command line: what can be asked for, one file a command.

mod address;
mod connection;
mod descriptors;
mod escape;
mod exit;
mod fresh;
mod hangup;
mod interrupt;
mod json;
mod output;
mod scratch;
mod show;

mod serve;

mod dev;
mod echo_bot;

mod bots;
mod chat;
mod conversations;
mod deadletters;
mod export;
mod scheduled;
mod send;
mod sessions;
mod tail;
mod when;

mod backup;
mod erase;
mod restore;

mod check;
mod token;

mod bench;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use connection::Connection;
use exit::Interrupted;

/// What every help page ends with. The numbers are those of [`exit`].
const EXIT_CODES: &str = "Exit codes: 0 ok, 1 refused or failed, 2 wrong usage, \
    3 gateway unreachable, 130 interrupted (`serve` and `dev` end with 0 when interrupted).";

#[derive(Debug, Parser)]
#[command(name = "turnwire", version, about, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    connection: Connection,
    /// Print JSON, one document a line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a gateway; on SIGHUP it reads its configuration again
    Serve(serve::Args),
    /// Run a gateway to try things with, with an echo bot
    Dev(dev::Args),
    /// Be a user in the terminal
    Chat(chat::Args),
    /// Speak first: send an activity on behalf of a bot
    Send(send::Args),
    /// List what waits for its time, or take it back
    Scheduled(scheduled::Args),
    /// List, replay and drop what bots and channels could not take
    Deadletters(deadletters::Args),
    /// List who is attached, and whether they work
    Sessions(sessions::Args),
    /// Watch one conversation, or all of them
    Tail(tail::Args),
    /// List conversations, the newest first
    Conversations(conversations::Args),
    /// Write conversations as transcript files, which the Bot Framework Emulator opens
    Export(export::Args),
    /// Copy everything that a gateway keeps to a new folder, while it runs
    Backup(backup::Args),
    /// Make a data folder of a backup
    Restore(restore::Args),
    /// Erase a person: what they said, their account, their files
    Erase(erase::Args),
    /// Add a bot to a conversation, remove one, or hand it over
    Bots(bots::Args),
    /// Check a configuration without starting anything
    Check(check::Args),
    /// Make a token, and the hash of it that the configuration wants
    Token(token::Args),
    /// Measure a gateway
    Bench(bench::Args),
}

/// Runs the program with the process's arguments and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    exit::say_damage();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and versions go to stdout with code 0, mistakes to stderr with 2; there is
            // nowhere left to say that neither could be written.
            let _ = error.print();
            return exit::usage(&error);
        }
    };
    let result = runtime(&cli.command).and_then(|runtime| {
        let result = runtime.block_on(run(cli));
        // Not dropped, which would wait for whatever still blocks, such as a read of stdin.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let Cli {
        connection,
        json,
        command,
    } = cli;
    match command {
        // They take an interruption as the wish to stop in good order.
        Command::Serve(args) => return serve::run(args).await,
        Command::Dev(args) => return dev::run(args).await,
        _ => {}
    }
    let work = async {
        match command {
            Command::Chat(args) => chat::run(args, &connection, json).await,
            Command::Send(args) => send::run(args, &connection, json).await,
            Command::Scheduled(args) => scheduled::run(args, &connection, json).await,
            Command::Deadletters(args) => deadletters::run(args, &connection, json).await,
            Command::Sessions(args) => sessions::run(args, &connection, json).await,
            Command::Tail(args) => tail::run(args, &connection, json).await,
            Command::Conversations(args) => conversations::run(args, &connection, json).await,
            Command::Export(args) => export::run(args, &connection, json).await,
            Command::Backup(args) => backup::run(args, &connection, json).await,
            Command::Restore(args) => restore::run(args, json).await,
            Command::Erase(args) => erase::run(args, &connection, json).await,
            Command::Bots(args) => bots::run(args, &connection, json).await,
            Command::Check(args) => check::run(&args, json),
            Command::Token(args) => token::run(&args, json),
            Command::Bench(args) => bench::run(args, &connection, json).await,
            Command::Serve(_) | Command::Dev(_) => Ok(()),
        }
    };
    tokio::select! {
        result = work => result,
        () = interrupt::interrupted() => Err(Interrupted.into()),
    }
}

fn runtime(command: &Command) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = match command {
        Command::Serve(_) | Command::Dev(_) => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(crate::server::workers());
            builder
        }
        // A load generator shares the machine with what it measures.
        Command::Bench(args) if args.threads() > 1 => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(args.threads());
            builder
        }
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    builder
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_may_follow_the_command() {
        let cli = Cli::try_parse_from([
            "turnwire",
            "tail",
            "dev/c-1",
            "--json",
            "--gateway",
            "http://h:1",
        ]);
        assert!(cli.is_ok_and(|cli| cli.json && cli.connection.gateway.as_deref() == Some("http://h:1")));
    }
}

//! The program `gretactl`: this process's arguments, environment and terminal.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use ctl::{Console, Exit};
use edge::Env;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut input = io::stdin().lock();
    let may_ask = input.is_terminal();
    let console = Console {
        out: &mut io::stdout().lock(),
        err: &mut io::stderr(),
        input: if may_ask { Some(&mut input) } else { None },
    };
    let exit: Exit = ctl::run(std::env::args_os(), Env::process(), console).await;
    exit.into()
}

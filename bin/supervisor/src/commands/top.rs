//! `supervisor top`.

use std::io::{self, IsTerminal};

use supervise::control::Client;

use crate::arguments::Global;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::settings::{self, control_socket};
use crate::top::{self, Theme};

pub(crate) fn run(global: &Global, output: &Output) -> Result<Exit, Failure> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(Failure::new(Exit::Usage, "top needs a terminal; status --watch also goes through a pipe"));
    }
    if std::env::var("TERM").is_ok_and(|terminal| terminal == "dumb") {
        return Err(Failure::new(Exit::Usage, "top cannot draw on a dumb terminal; status --watch can"));
    }
    let loaded = settings::load(&settings::sources(global), output)?;
    let socket = control_socket(global, &loaded.settings);
    let status = Client::connect(&socket)?.status()?;
    top::run(&socket, status, Theme { color: output.color, unicode: output.unicode })
}

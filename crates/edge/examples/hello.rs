//! Serves `hello` on 127.0.0.1 at the port given, until its standard
//! input ends; to see what the edge itself costs. `cargo run --release -p edge --example hello -- 8080`

use std::error::Error;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};

use actix_web::{App, web};
use edge::{Config, DrainKind, Listener, Phase, Server};
use tokio::sync::watch;

fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::args().nth(1).ok_or("which port?")?.parse()?;
    let listener = Listener::Tcp(TcpListener::bind((Ipv4Addr::LOCALHOST, port))?);
    let (phase, phases) = watch::channel(Phase::Serve);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        phase.send_replace(Phase::Drain(DrainKind::Stop));
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    let server = Server::new(Config::default(), &telemetry::Registry::new())?;
    let application = App::new().route("/", web::get().to(async || "hello"));
    runtime.block_on(server.serve(vec![listener], application, phases))?;
    Ok(())
}

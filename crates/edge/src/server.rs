//! A server's life: serve, drain, report.

use std::convert::Infallible;
use std::future::{pending, ready};
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use actix_http::body::MessageBody;
use actix_http::header::HeaderValue;
use actix_http::{HttpService, KeepAlive, Protocol, Request, Response};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, fn_factory, map_config};
use actix_web::HttpRequest;
use actix_web::dev::AppConfig;
use futures_util::future::join_all;
use tokio::select;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::timeout;
use tracing::{error, warn};

use crate::client_address::peer_address;
use crate::connection::Connection;
use crate::floor::Floor;
use crate::listener::{Adopted, Adoption, Listener};
use crate::state::{Full, ServerState};
use crate::statistics::{Closed, Statistics};
use crate::stream::{Socket, Stream, UNAVAILABLE};
use crate::task::ConnectionTask;
use crate::{Config, Error, detach};

/// What a server has been told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Take requests.
    Serve,
    /// Take what is queued, finish what is in flight, and return.
    Drain(DrainKind),
}

/// Why a server drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainKind {
    /// Another worker takes over, so there is time: waiting connections are left as long as ever.
    Reload,
    /// The service ends: a waiting connection is closed after a second of silence.
    Stop,
}

/// What a server did in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Requests answered.
    pub served: u64,
    /// Requests, or their detached work, that had not ended when the drain's time was over.
    pub cut: u64,
}

/// How many refused connections are read on, so that they see the refusal; beyond that they are reset.
const MAX_REFUSING: usize = 64;
const REFUSAL_LINGER: Duration = Duration::from_secs(1);
/// How long connections may take to notice that they were cut.
const ABORT_PATIENCE: Duration = Duration::from_secs(1);

/// Serves one application on any number of listeners, on the thread that calls it.
pub struct Server {
    state: Rc<ServerState>,
    served_by: Option<HeaderValue>,
    adoption: Adoption,
    adopted: Adopted,
    closed: watch::Sender<bool>,
}

impl Server {
    /// Prepares a server. Its metrics are registered in `metrics`.
    ///
    /// # Errors
    /// If `served_by` cannot be the value of a header.
    pub fn new(config: Config, metrics: &telemetry::Registry) -> Result<Self, Error> {
        let served_by = config.served_by.as_deref().map(HeaderValue::from_str).transpose();
        let served_by = served_by.map_err(|_| Error::ServedBy)?;
        let (adoption, adopted) = Adoption::new();
        let state = ServerState::new(config, Statistics::new(metrics));
        Ok(Self { state, served_by, adoption, adopted, closed: watch::Sender::new(false) })
    }

    /// The live figures.
    pub fn statistics(&self) -> Statistics {
        self.state.statistics.clone()
    }

    /// The way to give the server another listener to empty, while it serves and while it drains.
    pub fn adoption(&self) -> Adoption {
        self.adoption.clone()
    }

    /// Ends when a drain has closed all listeners, after what was queued at them has been accepted.
    pub fn closed(&self) -> impl Future<Output = ()> + use<> {
        let mut closed = self.closed.subscribe();
        async move {
            // A server that is dropped has closed them too.
            let _ = closed.wait_for(|closed| *closed).await;
        }
    }

    /// Serves until `phase` says `Drain`, drains, and tells how that went. It needs a runtime whose tasks are local to the
    /// thread. While `phase` changes from one kind of drain to the other, so does the drain.
    ///
    /// # Errors
    /// If a listener cannot be used or the application cannot be built, in both cases before anything is accepted.
    pub async fn serve<A, F, B>(
        self,
        listeners: Vec<Listener>,
        application: A,
        phase: watch::Receiver<Phase>,
    ) -> Result<Report, Error>
    where
        A: IntoServiceFactory<F, Request>,
        F: ServiceFactory<Request, Config = AppConfig> + 'static,
        F::Service: 'static,
        F::Response: Into<Response<B>> + 'static,
        F::Error: Into<actix_web::Error> + 'static,
        F::InitError: std::fmt::Debug,
        B: MessageBody + 'static,
    {
        let listeners = listeners.into_iter().map(Listener::start).collect::<io::Result<Vec<_>>>()?;
        let factory = application.into_factory().map_err(|error| error.into().error_response());
        let built = map_config(factory, |()| AppConfig::default()).new_service(()).await;
        let application = built.map_err(|error| {
            error!("the application could not be built: {error:?}");
            Error::Application
        })?;
        let floor = Rc::new(Floor::new(application, Rc::clone(&self.state), self.served_by.clone()));
        let dispatch = HttpService::build()
            // Our own sweep keeps these deadlines, for every request and without a timer for each.
            .keep_alive(KeepAlive::Os)
            .client_request_timeout(Duration::ZERO)
            .client_disconnect_timeout(self.state.config.limits.linger)
            .h1_allow_half_closed(false)
            .on_connect_ext(|stream: &Stream, data| {
                data.insert(Rc::clone(stream.connection()));
            })
            .finish(fn_factory(move || ready(Ok::<_, ()>(Rc::clone(&floor)))))
            .new_service(())
            .await
            .map_err(|()| Error::Application)?;
        let state = &*self.state;
        let take = |socket, peer| match self.state.admit(peer) {
            Ok(registration) => {
                let stream = Stream::new(socket, Rc::clone(&registration.0));
                let dispatcher = dispatch.call((stream, Protocol::Http1, peer));
                spawn_local(ConnectionTask::new(dispatcher, registration));
            }
            Err(full) => refuse(&self.state, socket, full),
        };
        let accepting = listeners
            .into_iter()
            .map(|listener| listener.run(drain_begins(phase.clone()), state.config.limits.descriptor_pause, &take));
        select! {
            biased;
            never = follow(phase.clone(), state) => match never {},
            never = state.sweep() => match never {},
            never = self.adopted.run(&take) => match never {},
            report = async { join_all(accepting).await; self.closed.send_replace(true); finish(state).await } => Ok(report),
        }
    }
}

/// Waits for what is in flight, and cuts it when its time is over.
async fn finish(state: &ServerState) -> Report {
    let ended = async {
        state.emptied().await;
        detach::finished().await;
    };
    let cut = match timeout(state.config.drain_timeout, ended).await {
        Ok(()) => 0,
        Err(_) => {
            // Work that a request waits for is in both figures.
            let cut = state.busy().max(detach::unfinished());
            warn!("the drain took too long: {cut} requests are cut");
            state.abort_all();
            if timeout(ABORT_PATIENCE, state.emptied()).await.is_err() {
                warn!("some connections did not notice that they were cut");
            }
            cut
        }
    };
    Report { served: state.statistics.requests_total(), cut: cut as u64 }
}

/// Tells a client that there is no room, and gives it a moment to read that.
fn refuse(state: &Rc<ServerState>, socket: Socket, full: Full) {
    state.statistics.closed(match full {
        Full::Server => Closed::ServerFull,
        Full::Address => Closed::AddressFull,
    });
    socket.write_once(UNAVAILABLE);
    if let Some(refusal) = state.begin_refusal(MAX_REFUSING) {
        spawn_local(async move {
            socket.shutdown_write();
            // Either the client closes or its time is over; both end it.
            let _ = timeout(REFUSAL_LINGER, socket.read_to_end()).await;
            drop(refusal);
        });
    }
}

/// The client's address: the peer's, unless the peer is a trusted proxy or on a unix socket; then the nearest hop in the
/// configured header that is not a trusted proxy. A unix socket without that header is 127.0.0.1.
pub fn client_address(request: &HttpRequest) -> IpAddr {
    match request.conn_data::<Rc<Connection>>() {
        Some(connection) if connection.trusted => {
            let proxies = &connection.server.config.trusted_proxies;
            proxies.client_behind(peer_address(connection.peer), request.headers())
        }
        Some(connection) => {
            connection.server.notice_proxy(request.headers());
            peer_address(connection.peer)
        }
        None => peer_address(request.peer_addr()),
    }
}

/// Gives the body of this request `duration` from the end of its head, in place of 15 seconds.
///
/// A middleware of the route calls it before an extractor begins to read the body.
pub fn set_body_deadline(request: &HttpRequest, duration: Duration) {
    if let Some(connection) = request.conn_data::<Rc<Connection>>() {
        connection.allow_body(duration);
    }
}

async fn drain_begins(mut phase: watch::Receiver<Phase>) {
    if phase.wait_for(|phase| matches!(phase, Phase::Drain(_))).await.is_err() {
        // Nobody is left to say so.
        pending::<()>().await;
    }
}

async fn follow(mut phase: watch::Receiver<Phase>, state: &ServerState) -> Infallible {
    loop {
        if let Phase::Drain(kind) = *phase.borrow_and_update() {
            state.drain(kind);
        }
        if phase.changed().await.is_err() {
            pending::<()>().await;
        }
    }
}

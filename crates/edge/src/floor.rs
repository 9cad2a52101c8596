//! What every request gets before and after the application: an identity, a deadline, and an answer whatever happens.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use actix_http::body::{BoxBody, MessageBody};
use actix_http::header::{HeaderName, HeaderValue};
use actix_http::{ConnectionType, Method, Payload, Request, Response, StatusCode, Uri};
use actix_service::Service;
use futures_util::future::LocalBoxFuture;
use pin_project_lite::pin_project;
use telemetry::{RequestContext, in_request};
use tracing::{error, info, warn};

use crate::body::{AnswerBody, RequestBody, poll_body};
use crate::connection::{Body, Connection, Order};
use crate::head::{Head, Refusal};
use crate::state::ServerState;
use crate::statistics::{Closed, MethodIndex};
use crate::{AccessLog, Problem};

/// The largest body that is read to its end, although nobody wants it, rather than closing the connection.
const WORTH_READING: u64 = 64 * 1024;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

/// The service around the application.
pub(crate) struct Floor<S, B> {
    application: Rc<S>,
    server: Rc<ServerState>,
    served_by: Option<HeaderValue>,
    /// The body of the application's answers.
    body: PhantomData<fn() -> B>,
}

impl<S, B> Floor<S, B> {
    pub(crate) fn new(application: S, server: Rc<ServerState>, served_by: Option<HeaderValue>) -> Self {
        Self { application: Rc::new(application), server, served_by, body: PhantomData }
    }
}

impl<S, B> Service<Request> for Floor<S, B>
where
    S: Service<Request> + 'static,
    S::Response: Into<Response<B>>,
    S::Error: Into<Response<BoxBody>>,
    B: MessageBody + 'static,
{
    type Response = Response<AnswerBody<B>>;
    type Error = Infallible;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // An application that cannot serve answers so itself.
        let _ = ready!(self.application.poll_ready(cx));
        Poll::Ready(Ok(()))
    }

    fn call(&self, mut request: Request) -> Self::Future {
        let connection =
            request.conn_data::<Rc<Connection>>().expect("put there when the connection was accepted").clone();
        let head = Head::inspect(request.head());
        let refusal = head.refusal;
        let small_body = head.content_length.is_none_or(|length| length <= WORTH_READING);
        let context = Arc::new(RequestContext::from_headers(head.request_id, head.traceparent));
        let payload = request.take_payload();
        let has_body = !matches!(payload, Payload::None);
        connection.begin_request(has_body);
        if has_body {
            let body = RequestBody::new(payload, Rc::clone(&connection));
            *request.payload() = Payload::Stream { payload: Box::pin(body) };
        }
        let wanted = self.server.config.access_log != AccessLog::Off;
        let exchange = Exchange {
            application: Rc::clone(&self.application),
            in_flight: Some(InFlight::new(connection, request.method())),
            context: Arc::clone(&context),
            served_by: self.served_by.clone(),
            asked_to_close: request.head().connection_type() == ConnectionType::Close,
            small_body,
            line: wanted.then(|| (request.method().clone(), request.uri().clone())),
            state: State::Start { request: Some(request), refusal },
        };
        Box::pin(in_request(context, exchange))
    }
}

pin_project! {
    /// One request on its way to an answer.
    pub(crate) struct Exchange<S, B>
    where
        S: Service<Request>,
    {
        application: Rc<S>,
        in_flight: Option<InFlight>,
        context: Arc<RequestContext>,
        served_by: Option<HeaderValue>,
        asked_to_close: bool,
        // Whether what is left of the body may be read for the connection's sake.
        small_body: bool,
        line: Option<(Method, Uri)>,
        #[pin]
        state: State<S::Future, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, B> {
        Start { request: Option<Request>, refusal: Option<Refusal> },
        Handling { #[pin] handler: F },
        Answered { answer: Option<Answer<B>>, waiting: bool },
    }
}

enum Answer<B> {
    Application(Response<B>),
    Edge(Response<BoxBody>),
}

impl<B> Answer<B> {
    fn problem(problem: Problem) -> Self {
        Self::Edge(problem.response().into())
    }
}

impl<S, B> Future for Exchange<S, B>
where
    S: Service<Request>,
    S::Response: Into<Response<B>>,
    S::Error: Into<Response<BoxBody>>,
    B: MessageBody,
{
    type Output = Result<Response<AnswerBody<B>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut this = self.as_mut().project();
            let in_flight = this.in_flight.as_ref().expect("a future is not polled after it is ready");
            let answer = match this.state.as_mut().project() {
                StateProjection::Start { request, refusal } => {
                    if let Some(refusal) = refusal {
                        Answer::problem(refusal.problem())
                    } else {
                        let request = request.take().expect("taken once, since the state changes with it");
                        match catch_unwind(AssertUnwindSafe(|| this.application.call(request))) {
                            Ok(handler) => {
                                this.state.set(State::Handling { handler });
                                continue;
                            }
                            Err(panic) => in_flight.panicked(&*panic),
                        }
                    }
                }
                StateProjection::Handling { handler } => match in_flight.late() {
                    Some(answer) => answer,
                    None => match catch_unwind(AssertUnwindSafe(|| handler.poll(cx))) {
                        Ok(Poll::Pending) => return Poll::Pending,
                        Ok(Poll::Ready(Ok(response))) => Answer::Application(response.into()),
                        Ok(Poll::Ready(Err(error))) => Answer::Edge(error.into()),
                        Err(panic) => in_flight.panicked(&*panic),
                    },
                },
                StateProjection::Answered { answer, waiting } => {
                    if !in_flight.body_is_read(cx) {
                        // A connection cannot go on after an unread body, so the rest of a small one is worth a moment.
                        if !*waiting && *this.small_body {
                            *waiting = true;
                            in_flight.connection.allow_rest();
                        }
                        if *waiting && in_flight.connection.pending_order().is_none() {
                            return Poll::Pending;
                        }
                    }
                    let answer = answer.take().expect("taken once, since the future is ready with it");
                    return Poll::Ready(Ok(self.finish(answer)));
                }
            };
            // Dropping the handler leaves what it did not read of the body to the connection.
            this.state.set(State::Answered { answer: Some(answer), waiting: false });
        }
    }
}

impl<S: Service<Request>, B> Exchange<S, B> {
    fn finish(self: Pin<&mut Self>, answer: Answer<B>) -> Response<AnswerBody<B>> {
        let this = self.project();
        let in_flight = this.in_flight.take().expect("an exchange has one answer");
        let seal = Seal {
            close: *this.asked_to_close || in_flight.has_to_close(),
            request_id: HeaderValue::from_str(this.context.request_id()).ok(),
            served_by: this.served_by.take(),
            line: this.line.take(),
        };
        match answer {
            Answer::Application(response) => seal.put_on(response, in_flight, AnswerBody::application),
            Answer::Edge(response) => seal.put_on(response, in_flight, AnswerBody::edge),
        }
    }
}

/// What is added to every answer.
struct Seal {
    close: bool,
    request_id: Option<HeaderValue>,
    served_by: Option<HeaderValue>,
    line: Option<(Method, Uri)>,
}

impl Seal {
    fn put_on<T, U>(
        self,
        mut response: Response<T>,
        mut in_flight: InFlight,
        wrap: fn(T, InFlight) -> U,
    ) -> Response<U> {
        let head = response.head_mut();
        if let Some(request_id) = self.request_id {
            head.headers_mut().insert(REQUEST_ID, request_id);
        }
        if let Some(served_by) = self.served_by {
            head.headers_mut().insert(SERVED_BY, served_by);
        }
        if self.close && !head.upgrade() {
            head.set_connection_type(ConnectionType::Close);
        }
        in_flight.answered(head.status, head.connection_type() == ConnectionType::Close);
        if let Some((method, uri)) = self.line {
            in_flight.log(&method, &uri, head.status);
        }
        response.map_body(|_, body| wrap(body, in_flight))
    }
}

/// A request that has not been answered in full. Dropping it ends the request, wherever that happens.
pub(crate) struct InFlight {
    connection: Rc<Connection>,
    began: Instant,
    method: MethodIndex,
    /// Of the answer, once there is one.
    status: Option<StatusCode>,
    /// Whether the connection ends with this request; so it does when there never is an answer.
    closing: bool,
}

impl InFlight {
    fn new(connection: Rc<Connection>, method: &Method) -> Self {
        connection.server.statistics.request_began();
        Self { connection, began: Instant::now(), method: method.into(), status: None, closing: true }
    }

    /// What the sweep wants answered in the handler's stead.
    fn late<B>(&self) -> Option<Answer<B>> {
        let answer = match self.connection.pending_order()? {
            Order::HandlerLate => {
                warn!("the handler took longer than its deadline");
                Answer::problem(Problem::new(StatusCode::GATEWAY_TIMEOUT))
            }
            Order::BodyLate => {
                self.connection.server.statistics.closed(Closed::BodyLate);
                Answer::problem(Problem::new(StatusCode::REQUEST_TIMEOUT).detail("The request's body took too long."))
            }
            _ => return None,
        };
        self.connection.forget_order();
        Some(answer)
    }

    fn panicked<B>(&self, panic: &(dyn Any + Send)) -> Answer<B> {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        error!("the handler panicked: {text}");
        self.connection.server.statistics.panicked();
        Answer::problem(Problem::new(StatusCode::INTERNAL_SERVER_ERROR))
    }

    /// Whether nothing is left of the request's body, after taking what has come in of it.
    fn body_is_read(&self, cx: &mut Context<'_>) -> bool {
        let mut unread = self.connection.unread.borrow_mut();
        if let Some(payload) = &mut *unread {
            while let Poll::Ready(Some(Ok(_))) = poll_body(payload, &self.connection, cx) {}
        }
        self.connection.body.get() == Body::Complete
    }

    fn has_to_close(&self) -> bool {
        self.connection.server.is_draining() || self.connection.body.get() != Body::Complete
    }

    fn answered(&mut self, status: StatusCode, closing: bool) {
        self.status = Some(status);
        self.closing = closing;
        self.connection.begin_answer();
    }

    fn log(&self, method: &Method, uri: &Uri, status: StatusCode) {
        if self.connection.server.config.access_log == AccessLog::Errors && !status.is_server_error() {
            return;
        }
        let milliseconds = self.began.elapsed().as_secs_f64() * 1e3;
        let path = uri.path();
        info!(
            http.request.method = %method,
            url.path = path,
            http.response.status_code = status.as_u16(),
            duration_ms = milliseconds,
            "{method} {path} was answered with {} in {milliseconds:.1} ms",
            status.as_u16(),
        );
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.connection.end_request(self.closing);
        self.connection.server.statistics.request_ended(self.method, self.status, self.began.elapsed());
    }
}

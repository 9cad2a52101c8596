//! Bodies as the edge hands them on: requests' are watched for their pace, answers' for their end.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_http::Payload;
use actix_http::body::{BodySize, BoxBody, MessageBody};
use actix_http::error::PayloadError;
use bytes::Bytes;
use futures_util::Stream;
use pin_project_lite::pin_project;

use crate::connection::{Body, Connection};
use crate::floor::InFlight;

/// The body of a request.
pub(crate) struct RequestBody {
    payload: Option<Payload>,
    connection: Rc<Connection>,
    /// A handler may keep a body that came in full beyond its request; from then on it is nobody's business.
    request: u32,
}

impl RequestBody {
    pub(crate) fn new(payload: Payload, connection: Rc<Connection>) -> Self {
        Self { payload: Some(payload), request: connection.request(), connection }
    }

    fn is_current(&self) -> bool {
        self.connection.request() == self.request && self.connection.is_busy()
    }
}

impl Stream for RequestBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let current = this.is_current();
        let Some(payload) = &mut this.payload else { return Poll::Ready(None) };
        let polled = if current { poll_body(payload, &this.connection, cx) } else { Pin::new(payload).poll_next(cx) };
        if matches!(polled, Poll::Ready(None)) {
            this.payload = None;
        }
        polled
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        // What the handler did not want is read by the floor, so that the connection can be used again.
        if self.is_current() {
            *self.connection.unread.borrow_mut() = self.payload.take();
        }
    }
}

/// Polls a request's body and notes for the sweep whose turn it is.
pub(crate) fn poll_body(
    payload: &mut Payload,
    connection: &Connection,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Bytes, PayloadError>>> {
    let polled = Pin::new(payload).poll_next(cx);
    match &polled {
        Poll::Pending => connection.body_is_wanted(),
        Poll::Ready(Some(Ok(_))) => connection.body_progress(Body::Held),
        Poll::Ready(_) => connection.body_progress(Body::Complete),
    }
    polled
}

pin_project! {
    /// The body of an answer. When it is dropped, the answer is complete or nobody is left to take it.
    pub(crate) struct AnswerBody<B> {
        #[pin]
        body: Source<B>,
        in_flight: InFlight,
    }
}

pin_project! {
    #[project = SourceProjection]
    enum Source<B> {
        Application { #[pin] body: B },
        Edge { #[pin] body: BoxBody },
    }
}

impl<B> AnswerBody<B> {
    pub(crate) fn application(body: B, in_flight: InFlight) -> Self {
        Self { body: Source::Application { body }, in_flight }
    }

    pub(crate) fn edge(body: BoxBody, in_flight: InFlight) -> Self {
        Self { body: Source::Edge { body }, in_flight }
    }
}

impl<B: MessageBody> MessageBody for AnswerBody<B> {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        match &self.body {
            Source::Application { body } => body.size(),
            Source::Edge { body } => body.size(),
        }
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let polled = match self.project().body.project() {
            SourceProjection::Application { body } => ready!(body.poll_next(cx)).map(|next| next.map_err(Into::into)),
            SourceProjection::Edge { body } => ready!(body.poll_next(cx)),
        };
        Poll::Ready(polled)
    }
}

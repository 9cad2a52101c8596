//! A body that holds units at the same time until it has been sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use pin_project_lite::pin_project;

use super::Standing;

pin_project! {
    /// Keeps what was decided about a request until its answer has gone out.
    pub(crate) struct Holding<B> {
        #[pin]
        body: B,
        standing: Option<Standing>,
    }
}

impl<B> Holding<B> {
    /// A body for which nothing is held.
    pub(crate) fn nothing(body: B) -> Self {
        Self { body, standing: None }
    }

    /// Keeps what `standing` holds, if anything.
    pub(crate) fn until_sent(self, standing: Standing) -> Self {
        Self { standing: standing.holds().then_some(standing), ..self }
    }
}

impl<B: MessageBody> MessageBody for Holding<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.project().body.poll_next(context)
    }

    fn try_into_bytes(self) -> Result<Bytes, Self> {
        let Self { body, standing } = self;
        body.try_into_bytes().map_err(|body| Self { body, standing })
    }
}

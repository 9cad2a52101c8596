//! Who a piece of work is done for. The context is known to every log line written while the request's future is polled, without a
//! span per request: entering costs two swaps of a pointer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use crate::traceparent::{SpanId, TraceId, TraceParent};

/// Longest request id that is taken from a client.
const LONGEST_REQUEST_ID: usize = 128;
/// Characters of a request id of our own: 100 random bits in base 32.
const OWN_REQUEST_ID: usize = 20;
/// Crockford's alphabet: no letter that looks like a digit.
const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

thread_local! {
    static CURRENT: RefCell<Option<Arc<RequestContext>>> = const { RefCell::new(None) };
}

/// The ids of one request. They name, they do not authenticate: clients may choose them, and ours are random but guessable.
#[derive(Debug)]
pub struct RequestContext {
    request_id: RequestId,
    trace: TraceParent,
    parent: Option<SpanId>,
}

#[derive(Debug)]
enum RequestId {
    Given(Box<str>),
    Own([u8; OWN_REQUEST_ID]),
}

impl RequestContext {
    /// From the request's headers `x-request-id` and `traceparent`. A request id is taken if it matches `^[A-Za-z0-9._-]{1,128}$`, a trace
    /// if it follows the specification; what is not taken is made here.
    pub fn from_headers(request_id: Option<&str>, traceparent: Option<&str>) -> Self {
        let request_id =
            request_id.filter(|id| is_request_id(id)).map_or_else(own_request_id, |id| RequestId::Given(id.into()));
        let given = traceparent.and_then(TraceParent::parse);
        let trace = TraceParent {
            trace_id: given.map_or_else(TraceId::random, |given| given.trace_id),
            span_id: SpanId::random(),
            sampled: given.is_some_and(|given| given.sampled),
        };
        Self { request_id, trace, parent: given.map(|given| given.span_id) }
    }

    /// The context of the request whose future is being polled on this thread.
    pub fn current() -> Option<Arc<Self>> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// For `x-request-id`.
    pub fn request_id(&self) -> &str {
        match &self.request_id {
            RequestId::Given(id) => id,
            RequestId::Own(id) => std::str::from_utf8(id).expect("the alphabet is ASCII"),
        }
    }

    /// The trace that the request belongs to.
    pub fn trace_id(&self) -> TraceId {
        self.trace.trace_id
    }

    /// Our part in the trace.
    pub fn span_id(&self) -> SpanId {
        self.trace.span_id
    }

    /// The caller's part in the trace, if the request came with one.
    pub fn parent_span_id(&self) -> Option<SpanId> {
        self.parent
    }

    /// Whether the caller records the trace.
    pub fn is_sampled(&self) -> bool {
        self.trace.sampled
    }

    /// `traceparent` for the services that we call in turn.
    pub fn traceparent(&self) -> String {
        self.trace.to_string()
    }

    /// Looks at the current context without counting another reference.
    pub(crate) fn with_current<R>(look: impl FnOnce(Option<&Self>) -> R) -> R {
        CURRENT.with_borrow(|current| look(current.as_deref()))
    }
}

/// Runs a future as part of a request: [`RequestContext::current`] is this context during each of its polls, and every log line written
/// then carries its ids. What the future spawns is on its own.
pub async fn in_request<F: Future>(context: Arc<RequestContext>, future: F) -> F::Output {
    let mut future = pin!(future);
    let mut waiting = Some(context);
    poll_fn(move |task| {
        let _entered = Entered::swap(&mut waiting);
        future.as_mut().poll(task)
    })
    .await
}

/// Puts the context where the thread finds it, and back when the poll ends, also by a panic.
struct Entered<'a>(&'a mut Option<Arc<RequestContext>>);

impl<'a> Entered<'a> {
    fn swap(waiting: &'a mut Option<Arc<RequestContext>>) -> Self {
        CURRENT.with_borrow_mut(|current| std::mem::swap(current, waiting));
        Self(waiting)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        CURRENT.with_borrow_mut(|current| std::mem::swap(current, self.0));
    }
}

fn is_request_id(text: &str) -> bool {
    (1..=LONGEST_REQUEST_ID).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn own_request_id() -> RequestId {
    let mut bits = fastrand::u128(..);
    let mut id = [0; OWN_REQUEST_ID];
    for character in &mut id {
        *character = BASE32[(bits & 31) as usize];
        bits >>= 5;
    }
    RequestId::Own(id)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn named(id: &str) -> Arc<RequestContext> {
        Arc::new(RequestContext::from_headers(Some(id), None))
    }

    fn current() -> Option<String> {
        RequestContext::with_current(|current| current.map(|context| context.request_id().to_owned()))
    }

    #[test]
    fn a_request_id_is_taken_only_if_it_is_harmless() {
        let check = |id: &str, taken: bool| {
            let context = RequestContext::from_headers(Some(id), None);
            assert_eq!(context.request_id() == id, taken, "{id:?}");
            assert!(is_request_id(context.request_id()));
        };
        check("a", true);
        check("Req.2026-11_20", true);
        check(&"x".repeat(128), true);
        check(&"x".repeat(129), false);
        check("", false);
        check("a b", false);
        check("a\r\nset-cookie: x", false);
        check("ä", false);
        check("\u{1b}[31m", false);
    }

    #[test]
    fn our_own_ids_differ() {
        let contexts: Vec<_> = (0..10_000).map(|_| RequestContext::from_headers(None, None)).collect();
        assert_eq!(contexts.iter().map(RequestContext::request_id).collect::<HashSet<_>>().len(), 10_000);
        assert_eq!(contexts.iter().map(RequestContext::trace_id).collect::<HashSet<_>>().len(), 10_000);
        assert_eq!(contexts.iter().map(RequestContext::span_id).collect::<HashSet<_>>().len(), 10_000);
    }

    #[test]
    fn a_trace_goes_on_under_a_span_of_ours() {
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = RequestContext::from_headers(None, Some(header));
        assert_eq!(context.trace_id().to_string(), &header[3..35]);
        assert_eq!(context.parent_span_id().unwrap().to_string(), &header[36..52]);
        assert_ne!(context.span_id().to_string(), &header[36..52]);
        assert!(context.is_sampled());
        assert_eq!(context.traceparent(), format!("00-{}-{}-01", &header[3..35], context.span_id()));
    }

    #[tokio::test]
    async fn the_context_is_there_during_polls_and_only_then() {
        let turns = async || {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            current()
        };
        let (one, none, two) =
            tokio::join!(in_request(named("one"), turns()), turns(), in_request(named("two"), turns()));
        assert_eq!((one.as_deref(), none, two.as_deref()), (Some("one"), None, Some("two")));
        assert!(RequestContext::current().is_none());
    }

    #[tokio::test]
    async fn an_inner_request_gives_way_to_the_outer_one() {
        let seen = in_request(named("outer"), async {
            let inner = in_request(named("inner"), async { current() }).await;
            (inner, current())
        });
        assert_eq!(seen.await, (Some("inner".into()), Some("outer".into())));
    }

    #[tokio::test]
    async fn a_panic_leaves_no_context_behind() {
        let panicking = in_request(named("one"), async { panic!("on purpose") });
        let task = tokio::task::LocalSet::new();
        assert!(task.run_until(async { tokio::task::spawn_local(panicking).await }).await.is_err());
        assert!(RequestContext::current().is_none());
    }
}

//! What the head of a request is refused for, found in one pass over its headers.

use actix_http::header::HeaderValue;
use actix_http::{Method, RequestHead, StatusCode, header};

use crate::Problem;
use crate::connection::MAX_HEAD_BYTES;

const MAX_HEADERS: usize = 64;

/// What the edge wants to know of a head.
pub(crate) struct Head<'a> {
    pub(crate) request_id: Option<&'a str>,
    pub(crate) traceparent: Option<&'a str>,
    /// What the client says its body has; `None` also without a body and for a chunked one.
    pub(crate) content_length: Option<u64>,
    pub(crate) refusal: Option<Refusal>,
}

/// Why a request is answered without asking the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    TooLarge,
    TooManyHeaders,
    Method,
    ContentEncoding,
}

impl Head<'_> {
    pub(crate) fn inspect(head: &RequestHead) -> Head<'_> {
        let mut found = Head { request_id: None, traceparent: None, content_length: None, refusal: None };
        // Method, target, version and the empty line; names and values are as on the wire but for spaces around values.
        let mut size = head.method.as_str().len() + target_length(&head.uri) + "  HTTP/1.1\r\n\r\n".len();
        let mut count = 0;
        let mut encoded = false;
        for (name, value) in head.headers() {
            count += 1;
            size += name.as_str().len() + value.len() + ": \r\n".len();
            // The lengths of the names we look for differ from one another, and comparing those first is cheapest.
            match name.as_str() {
                "x-request-id" => found.request_id = value.to_str().ok(),
                "traceparent" => found.traceparent = value.to_str().ok(),
                "content-length" => {
                    found.content_length = value.to_str().ok().and_then(|text| text.trim().parse().ok())
                }
                "content-encoding" => encoded = true,
                _ => {}
            }
        }
        found.refusal = if size > MAX_HEAD_BYTES {
            Some(Refusal::TooLarge)
        } else if count > MAX_HEADERS {
            Some(Refusal::TooManyHeaders)
        } else if matches!(head.method, Method::CONNECT | Method::TRACE) {
            Some(Refusal::Method)
        } else if encoded {
            Some(Refusal::ContentEncoding)
        } else {
            None
        };
        found
    }
}

impl Refusal {
    pub(crate) fn problem(self) -> Problem {
        match self {
            Self::TooLarge => Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
                .detail("The request line and its headers may have 16384 bytes together."),
            Self::TooManyHeaders => {
                Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE).detail("A request may have 64 headers.")
            }
            Self::Method => Problem::new(StatusCode::METHOD_NOT_ALLOWED)
                .header(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")),
            Self::ContentEncoding => Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE)
                .detail("Request bodies are taken without content coding.")
                .header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")),
        }
    }
}

fn target_length(uri: &actix_http::Uri) -> usize {
    let origin = uri.authority().map_or(0, |authority| "https://".len() + authority.as_str().len());
    origin + uri.path_and_query().map_or(1, |path| path.as_str().len())
}

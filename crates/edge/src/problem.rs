//! Answers that say what went wrong, as RFC 9457 problem details.

use std::borrow::Cow;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;
use telemetry::RequestContext;

/// A problem in the making.
///
/// Its members are `type` (`about:blank` unless set), `title`, `status`, `detail`, `instance`, the extensions and, inside
/// a request, `trace_id`. The detail of a 5xx is never sent: it would tell strangers about our inside.
///
/// ```ignore
/// Problem::new(StatusCode::CONFLICT).detail("The product was changed meanwhile.").with("version", 7).response()
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Problem {
    status: StatusCode,
    kind: Cow<'static, str>,
    title: Option<Cow<'static, str>>,
    detail: Option<Cow<'static, str>>,
    instance: Option<Cow<'static, str>>,
    extensions: Vec<(&'static str, Value)>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem that is known by its status alone.
    pub const fn new(status: StatusCode) -> Self {
        Self {
            status,
            kind: Cow::Borrowed("about:blank"),
            title: None,
            detail: None,
            instance: None,
            extensions: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// A URI that names the kind of problem.
    pub fn kind(mut self, uri: impl Into<Cow<'static, str>>) -> Self {
        self.kind = uri.into();
        self
    }

    /// What the kind of problem is called, the same for each occurrence; the status's name unless set.
    pub fn title(mut self, title: impl Into<Cow<'static, str>>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// What is wrong this time, for the one who has to mend the request.
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// A URI reference that names this occurrence.
    pub fn instance(mut self, instance: impl Into<Cow<'static, str>>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// Adds an extension member.
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.extensions.push((name, value.into()));
        self
    }

    /// Adds a header to the answer.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The answer: `application/problem+json`, with the trace id of the request that is being handled.
    pub fn response(self) -> HttpResponse {
        let mut body = Vec::with_capacity(256);
        serde_json::to_writer(&mut body, &self).expect("a Vec takes all bytes, and the members are plain JSON values");
        let mut response = HttpResponse::with_body(self.status, body).map_into_boxed_body();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        response
    }
}

impl From<Problem> for HttpResponse {
    fn from(problem: Problem) -> Self {
        problem.response()
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(None)?;
        members.serialize_entry("type", &self.kind)?;
        let title = self.title.as_deref().or_else(|| self.status.canonical_reason());
        members.serialize_entry("title", title.unwrap_or("Unknown"))?;
        members.serialize_entry("status", &self.status.as_u16())?;
        if let Some(detail) = self.detail.as_ref().filter(|_| !self.status.is_server_error()) {
            members.serialize_entry("detail", detail)?;
        }
        if let Some(instance) = &self.instance {
            members.serialize_entry("instance", instance)?;
        }
        for (name, value) in &self.extensions {
            members.serialize_entry(name, value)?;
        }
        if let Some(context) = RequestContext::current() {
            members.serialize_entry("trace_id", &format_args!("{}", context.trace_id()))?;
        }
        members.end()
    }
}

#[cfg(test)]
mod tests {
    use actix_web::body::MessageBody;
    use actix_web::http::header::RETRY_AFTER;
    use serde_json::json;

    use super::*;

    fn body(response: HttpResponse) -> Value {
        let bytes = response.into_body().try_into_bytes().unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn a_problem_carries_its_members_and_headers() {
        let response = Problem::new(StatusCode::TOO_MANY_REQUESTS)
            .kind("https://iana.org/assignments/http-problem-types#quota-exceeded")
            .title("Too fast")
            .detail("100 requests in 60 s")
            .instance("/api/v1/products")
            .with("violated-policies", vec!["catalogue"])
            .header(RETRY_AFTER, HeaderValue::from_static("17"))
            .response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers().get(CONTENT_TYPE).unwrap(), "application/problem+json");
        assert_eq!(response.headers().get(RETRY_AFTER).unwrap(), "17");
        let expected = json!({
            "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
            "title": "Too fast",
            "status": 429,
            "detail": "100 requests in 60 s",
            "instance": "/api/v1/products",
            "violated-policies": ["catalogue"],
        });
        assert_eq!(body(response), expected);
    }

    #[test]
    fn the_detail_of_a_server_error_is_not_sent() {
        let response = Problem::new(StatusCode::INTERNAL_SERVER_ERROR).detail("password wrong").response();
        let expected = json!({"type": "about:blank", "title": "Internal Server Error", "status": 500});
        assert_eq!(body(response), expected);
    }
}

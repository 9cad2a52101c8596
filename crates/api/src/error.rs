//! Every way a request can fail, and the one place where a failure becomes a status and a problem document.

use std::borrow::Cow;
use std::fmt;

use actix_web::error::{JsonPayloadError, QueryPayloadError};
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use cache::LoadError;
use edge::Problem;
use serde_json::json;

/// Why a request is not answered with what it asked for.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// There is no such thing, or it is none of the client's business.
    NotFound,
    /// The request cannot be understood.
    BadRequest(Cow<'static, str>),
    /// No token, or one that is not accepted. Which of its faults it was is not told.
    Unauthenticated,
    /// The token's role may not do this.
    Forbidden,
    /// The body is understood and breaks rules, all of which are listed.
    Invalid(Vec<FieldError>),
    /// The body has a type that the route does not take.
    UnsupportedMediaType,
    /// The body is longer than the route allows.
    TooLarge,
    /// `If-Match` named another version than the current one.
    VersionMismatch { current: i64 },
    /// Something this service depends on is away; trying again later helps.
    Unavailable(String),
    /// A fault of ours.
    Internal(String),
}

/// One rule that one member of a body breaks.
#[derive(Debug)]
pub(crate) struct FieldError {
    /// JSON Pointer (RFC 6901) to the member; empty for the whole body.
    pub(crate) pointer: &'static str,
    code: &'static str,
    detail: Cow<'static, str>,
}

impl FieldError {
    pub(crate) fn new(pointer: &'static str, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { pointer, code, detail: detail.into() }
    }
}

impl ApiError {
    pub(crate) fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::BadRequest(detail.into())
    }

    fn problem(&self) -> Problem {
        let problem = Problem::new(self.status_code());
        match self {
            Self::BadRequest(detail) => problem.detail(detail.clone()),
            Self::Unauthenticated => problem.header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            Self::Invalid(errors) => {
                let errors: Vec<_> = errors
                    .iter()
                    .map(|error| json!({"pointer": error.pointer, "code": error.code, "detail": error.detail}))
                    .collect();
                problem.detail("The body breaks the rules listed in errors.").with("errors", errors)
            }
            Self::UnsupportedMediaType => problem.detail("The body must be application/json."),
            Self::VersionMismatch { current } => {
                problem.detail("Somebody changed it first: read it again.").with("current_version", *current)
            }
            Self::Unavailable(_) => problem.header(RETRY_AFTER, retry_after()),
            Self::NotFound | Self::Forbidden | Self::TooLarge | Self::Internal(_) => problem,
        }
    }
}

/// One to five seconds, so that the clients of an outage do not come back all at once.
fn retry_after() -> HeaderValue {
    const SECONDS: [&str; 5] = ["1", "2", "3", "4", "5"];
    HeaderValue::from_static(SECONDS[fastrand::usize(..SECONDS.len())])
}

impl fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRequest(detail) => formatter.write_str(detail),
            Self::Unavailable(cause) | Self::Internal(cause) => formatter.write_str(cause),
            other => write!(formatter, "{}", other.status_code()),
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::VersionMismatch { .. } => StatusCode::PRECONDITION_FAILED,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The cause of a 5xx is logged here, once, and goes nowhere else.
    fn error_response(&self) -> HttpResponse {
        match self {
            Self::Internal(cause) => tracing::error!(cause, "Request failed"),
            Self::Unavailable(cause) => tracing::warn!(cause, "Request cannot be served for now"),
            _ => {}
        }
        self.problem().response()
    }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Unavailable(_) | store::Error::Busy(_) | store::Error::Full(_) => {
                Self::Unavailable(error.to_string())
            }
            other => Self::Internal(other.to_string()),
        }
    }
}

impl From<LoadError> for ApiError {
    fn from(error: LoadError) -> Self {
        match &error {
            LoadError::Failed(cause) => match cause.downcast_ref::<store::Error>() {
                Some(cause) => cause.clone().into(),
                None => Self::Internal(error.to_string()),
            },
            LoadError::Panicked => Self::Internal(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<serde_json::Error> for ApiError {
    fn from(error: serde_json::Error) -> Self {
        Self::Internal(format!("an answer cannot be serialised: {error}"))
    }
}

impl From<JsonPayloadError> for ApiError {
    fn from(error: JsonPayloadError) -> Self {
        match error {
            JsonPayloadError::OverflowKnownLength { .. } | JsonPayloadError::Overflow { .. } => Self::TooLarge,
            JsonPayloadError::ContentType => Self::UnsupportedMediaType,
            JsonPayloadError::Deserialize(error) => Self::BadRequest(format!("The body is not valid: {error}").into()),
            _ => Self::bad_request("The body cannot be read."),
        }
    }
}

impl From<QueryPayloadError> for ApiError {
    fn from(error: QueryPayloadError) -> Self {
        Self::BadRequest(format!("The query is not valid: {error}").into())
    }
}
